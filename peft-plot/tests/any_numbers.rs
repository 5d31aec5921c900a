//! Whatever the numbers are, there is a picture of them, within its borders.

mod common;

use common::*;
use peft_plot::*;

/// A linear congruential generator, from 0 to 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Values of any size; near each other, far apart, or both.
    fn values(&mut self, log: bool) -> Vec<f64> {
        let scale = 10f64.powf(180.0 * self.next() - 90.0);
        let spread = [0.0, 1e-12, 1e-6, 0.1, 1.0, 8.0][(6.0 * self.next()) as usize];
        let shift = if log { 1.0 } else { [0.0, 1.0, -1.0, 100.0][(4.0 * self.next()) as usize] };
        let count = 1 + (12.0 * self.next()) as usize;
        let value = |r: f64| {
            if spread > 1.0 || log {
                scale * 10f64.powf(spread * r)
            } else {
                scale * (shift + spread * (r - 0.5))
            }
        };
        (0..count).map(|_| value(self.next())).collect()
    }
}

fn inside(figure: &Figure, what: &str) {
    let svg = figure.svg().unwrap_or_else(|error| panic!("{what}: {error}\n{figure:?}"));
    let all = shapes(&svg);
    let (width, height) = (all[0].number("width"), all[0].number("height"));
    for shape in &all {
        let places = match shape.tag.as_str() {
            "polyline" | "polygon" => shape.points(),
            "circle" => vec![(shape.number("cx"), shape.number("cy"))],
            _ => vec![(shape.number("x"), shape.number("y"))],
        };
        for (x, y) in places {
            assert!(
                (0.0..=width).contains(&x) && (0.0..=height).contains(&y),
                "{what}: {shape:?}\n{figure:?}"
            );
        }
    }
}

#[test]
fn any_numbers_have_a_picture() {
    let mut random = Random(0);
    for round in 0..300 {
        let log = round % 2 == 1;
        let values = random.values(log);
        let halves: Vec<f64> = values.iter().map(|v| v.abs() * random.next()).collect();
        let others: Vec<f64> = values.iter().map(|_| random.next() + 0.1).collect();
        let pairs: Vec<(f64, f64)> = values.iter().copied().zip(others).map(|(v, x)| (x, v)).collect();
        let turned: Vec<(f64, f64)> = pairs.iter().map(|&(x, v)| (v, x)).collect();
        let y = axis("y", log, None);

        let mut bars = Bars { y: y.clone(), ..bars(&values) };
        bars.groups[0].errors = Some(halves.clone());
        bars.groups[0].labels = Some(values.iter().map(|v| format!("{v:.2e}\nline")).collect());
        inside(&one(Panel::Bars(bars)), "bars");

        let mut curve = Lines { y: y.clone(), ..lines(&pairs) };
        curve.series[0].band = Some(halves.clone());
        inside(&one(Panel::Lines(curve)), "lines");
        inside(&one(Panel::Lines(Lines { x: y.clone(), ..lines(&turned) })), "lines to the right");

        let mut bubbles = Points { y, area: Some("area".into()), ..points(&pairs) };
        for (point, half) in bubbles.points.iter_mut().zip(&halves) {
            (point.error, point.area) = (Some(*half), *half);
        }
        inside(&one(Panel::Points(bubbles)), "points");

        inside(&one(Panel::Heat(heat(&[&values, &halves]))), "heat");
        let blue = Heat { colours: Colours::Sequential, ..heat(&[&values]) };
        inside(&one(Panel::Heat(blue)), "heat in blue");
    }
}
