//! The two pictures of a sweep: what accuracy costs, and how training goes.

use crate::results::{Mean, Summary};
use peft_plot::{Axis, Figure, Lines, Panel, Point, Points, Series};

/// Curves that one panel has at most: more could not be told apart.
const CURVES: usize = 7;

/// Test accuracy against trainable parameters, a point a method.
pub fn accuracy(summaries: &[Summary], unadapted: Option<Mean>) -> Figure {
    // A logarithm has no place for what trains nothing.
    let points = summaries.iter().filter(|s| s.trainable > 0).map(|s| Point {
        label: s.method.into(),
        x: s.trainable as f64,
        y: s.accuracy.mean,
        error: s.accuracy.deviation,
        ..Point::default()
    });
    let x = Axis { label: "trainable parameters".into(), log: true, range: None };
    let y = Axis { label: "test accuracy (%)".into(), ..Axis::default() };
    let base = unadapted.map(|mean| format!("the base as it is has {mean:.1} %"));
    Figure {
        title: "What accuracy costs".into(),
        rows: vec![vec![Panel::Points(Points { x, y, points: points.collect(), ..Points::default() })]],
        note: note(summaries, base),
    }
}

/// Training loss by step, a curve a method.
pub fn losses(summaries: &[Summary]) -> Figure {
    // Losses begin so high that what follows would be flat: a tenth of the run may be cut off above.
    let later = summaries.iter().flat_map(|s| s.losses.iter().skip(s.losses.len() / 10));
    let highest =
        later.map(|(_, loss)| loss.mean + loss.deviation.unwrap_or(0.0)).fold(f64::MIN_POSITIVE, f64::max);
    let panel = |methods: &[Summary]| {
        Panel::Lines(Lines {
            title: String::new(),
            x: Axis { label: "training step".into(), ..Axis::default() },
            // One range, so that panels can be compared.
            y: Axis { label: "training loss (nats)".into(), range: Some((0.0, highest)), ..Axis::default() },
            series: methods.iter().map(curve).collect(),
        })
    };
    let panels = summaries.len().div_ceil(CURVES).max(1);
    let of_one = summaries.len().div_ceil(panels).max(1);
    let panels: Vec<Panel> = summaries.chunks(of_one).map(panel).collect();
    Figure {
        title: "Training loss".into(),
        rows: panels.chunks(2).map(<[Panel]>::to_vec).collect(),
        note: note(summaries, None),
    }
}

fn curve(summary: &Summary) -> Series {
    let band = summary.losses.iter().map(|(_, loss)| loss.deviation).collect();
    Series {
        name: summary.method.into(),
        points: summary.losses.iter().map(|(step, loss)| (*step as f64, loss.mean)).collect(),
        band,
        ..Series::default()
    }
}

/// What the error bars and bands are.
fn note(summaries: &[Summary], more: Option<String>) -> Option<String> {
    let seeds = summaries.iter().map(|s| s.seeds).max().filter(|seeds| *seeds > 1);
    let spread = seeds.map(|seeds| format!("Mean ± standard deviation over {seeds} seeds"));
    let parts: Vec<String> = spread.into_iter().chain(more).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    #[test]
    fn accuracy_has_a_point_and_an_error_for_each_method() {
        let results = results();
        let figure = accuracy(&results.summaries(), results.unadapted());
        let [Panel::Points(panel)] = &figure.rows[0][..] else { panic!("{figure:?}") };
        let found: Vec<_> = panel.points.iter().map(|p| (p.label.as_str(), p.x, p.y.round())).collect();
        assert_eq!(found, [("full", 1000.0, 70.0), ("lora", 10.0, 70.0), ("prompt", 5.0, 25.0)]);
        assert!(panel.points[0].error.is_some_and(|e| (e - 200f64.sqrt()).abs() < 1e-9));
        assert_eq!(panel.points[2].error, None);
        assert_eq!(
            figure.note.as_deref(),
            Some("Mean ± standard deviation over 2 seeds; the base as it is has 25.0 %")
        );
    }

    #[test]
    fn losses_share_panels_and_one_range() {
        let summaries = results().summaries();
        let figure = losses(&summaries);
        let [Panel::Lines(panel)] = &figure.rows[0][..] else { panic!("{figure:?}") };
        assert_eq!(panel.series[0].points, [(1.0, 3.0), (2.0, 0.5)]);
        assert_eq!(panel.series[0].band, Some(vec![2f64.sqrt(), 0.0]));
        // One seed has no band.
        assert_eq!(panel.series[2].band, None);
        assert_eq!(panel.y.range, Some((0.0, 3.0 + 2f64.sqrt())));
        // Many methods: panels of equal size, two a row.
        let many: Vec<Summary> = summaries.iter().cycle().take(15).cloned().collect();
        let rows: Vec<usize> = losses(&many).rows.iter().map(Vec::len).collect();
        assert_eq!(rows, [2, 1]);
        assert!(losses(&[]).rows.is_empty());
    }
}
