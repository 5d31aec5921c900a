//! The curves of a report: events as figures.

use crate::watch::progress::Smooth;
use crate::watch::summary::Run;
use anyhow::Result;
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use std::collections::BTreeSet;

/// A figure with what it shows in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub title: String,
    /// For who cannot see it: where the curves begin and end.
    pub words: String,
    pub figure: Figure,
}

impl Curve {
    /// As SVG for a page: with its title and its words for programs that read aloud.
    pub fn svg(&self, number: usize) -> Result<String> {
        let svg = self.figure.svg_of((370.0, 250.0))?;
        let (head, rest) = svg.split_once('>').unwrap_or((&svg, ""));
        let (title, words) = (escape(&self.title), escape(&self.words));
        let labels = format!("role=\"img\" aria-labelledby=\"t{number} d{number}\"");
        Ok(format!(
            "{head} {labels}><title id=\"t{number}\">{title}</title><desc id=\"d{number}\">{words}</desc>{rest}"
        ))
    }
}

/// A curve is drawn with so many points at most: twice as many pixels are not there.
const POINTS: usize = 400;

/// All curves that there is something for: loss, what else was evaluated, learning rate, gradients' norm, speed.
pub fn curves(runs: &[Run]) -> Vec<Curve> {
    let mut all: Vec<Curve> = loss(runs).into_iter().collect();
    let names: BTreeSet<&String> = runs.iter().flat_map(Run::evals).flat_map(|(.., f)| f.keys()).collect();
    for name in names {
        let values =
            |run: &Run| run.evals().filter_map(|(at, _, f)| Some((at as f64, *f.get(name)?))).collect();
        let title = shown(name);
        all.extend(curve(&title, &title, runs, true, values));
    }
    let lr = |run: &Run| thin(run.steps().map(|s| (s.step as f64, s.lr)).collect());
    all.extend(curve("Learning rate", "learning rate", runs, false, lr));
    let norm = |run: &Run| smooth(run.steps().filter_map(|s| Some((s.step as f64, s.grad_norm?))).collect());
    all.extend(curve("Norm of the gradients, smoothed", "norm", runs, false, norm));
    let speed = |run: &Run| smooth(run.steps().filter_map(|s| Some((s.step as f64, s.speed()?))).collect());
    all.extend(curve("Speed, smoothed", "tokens a second", runs, false, speed));
    all
}

/// Training and evaluation in one plot; of a single run, the loss of each update behind its mean.
fn loss(runs: &[Run]) -> Option<Curve> {
    let mut series = Vec::new();
    for run in runs {
        let raw: Vec<(f64, f64)> = run.steps().map(|s| (s.step as f64, s.loss)).collect();
        series.push(named(runs, run, "training, smoothed", smooth(raw)));
    }
    for run in runs {
        let points = run.evals().map(|(at, loss, _)| (at as f64, loss)).collect();
        series.push(Series { markers: true, ..named(runs, run, "evaluation", thin(points)) });
    }
    if let [run] = runs {
        let points = thin(run.steps().map(|s| (s.step as f64, s.loss)).collect());
        series.push(Series { faint: true, ..named(runs, run, "training, each update", points) });
    }
    finished("Loss", "loss", series)
}

fn curve(
    title: &str,
    unit: &str,
    runs: &[Run],
    markers: bool,
    values: impl Fn(&Run) -> Vec<(f64, f64)>,
) -> Option<Curve> {
    let series = runs.iter().map(|run| Series { markers, ..named(runs, run, "", values(run)) });
    finished(title, unit, series.collect())
}

/// A series' name has the run's where there are several.
fn named(runs: &[Run], run: &Run, what: &str, points: Vec<(f64, f64)>) -> Series {
    let name = match (runs.len() > 1, what.is_empty()) {
        (false, _) => what.to_owned(),
        (true, true) => run.name.clone(),
        (true, false) => format!("{}: {what}", run.name),
    };
    // What cannot be drawn is left out of the words as well.
    let name = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Series { name, points, ..Series::default() }
}

/// The figure, unless there is nothing to draw.
fn finished(title: &str, unit: &str, series: Vec<Series>) -> Option<Curve> {
    let drawable = |y: f64| y == 0.0 || (1e-90..1e90).contains(&y.abs());
    let mut series = series;
    for s in &mut series {
        s.points.retain(|(x, y)| drawable(*x) && drawable(*y));
    }
    series.retain(|s| !s.points.is_empty());
    let words = series.iter().filter(|s| !s.faint).map(ends).collect::<Vec<_>>().join("; ");
    if series.is_empty() {
        return None;
    }
    let axis = |label: &str| Axis { label: label.to_owned(), ..Axis::default() };
    let lines = Lines { title: String::new(), x: axis("update"), y: axis(unit), series };
    let figure = Figure { title: title.to_owned(), rows: vec![vec![Panel::Lines(lines)]], note: None };
    Some(Curve { title: title.to_owned(), words: format!("{title} over updates. {words}."), figure })
}

fn ends(series: &Series) -> String {
    let name = if series.name.is_empty() { String::new() } else { format!("{}: ", series.name) };
    match (series.points.first(), series.points.last()) {
        (Some((x0, y0)), Some((x1, y1))) if x0 != x1 => {
            format!("{name}from {} at update {x0} to {} at update {x1}", short(*y0), short(*y1))
        }
        (Some((x, y)), _) => format!("{name}{} at update {x}", short(*y)),
        _ => name,
    }
}

/// A number with four digits that count.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if !size.is_finite() => "none".into(),
        size if (1e-3..1e5).contains(&size) => format!("{value:.0$}", decimals(value)),
        _ => format!("{value:.3e}"),
    }
}

/// How many digits after the point a number of four digits that count has.
pub fn decimals(value: f64) -> usize {
    (3.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize
}

/// An exponential mean over about a thirtieth of the points, from the first on; as many of its points as a curve has.
fn smooth(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let span = (points.len() as f64 / 30.0).clamp(4.0, 500.0);
    let mut mean = Smooth::over(span);
    let smoothed = points.into_iter().filter_map(|(x, y)| {
        mean.take(y);
        Some((x, mean.value()?))
    });
    thin(smoothed.collect())
}

/// Of each stretch of points the least and the greatest, in their order, so that a peak stays.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points;
    }
    let stretch = points.len().div_ceil(POINTS / 2);
    let mut kept = Vec::with_capacity(POINTS + 2);
    kept.extend(points.first());
    for some in points.chunks(stretch) {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        if let (Some(low), Some(high)) = (some.iter().min_by(by), some.iter().max_by(by)) {
            let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
            kept.extend([*first, *second]);
        }
    }
    kept.extend(points.last());
    kept.dedup();
    kept
}

/// `accuracy` as "Accuracy", `f1` as "F1".
pub fn shown(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars().filter(|c| !c.is_control());
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => words,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
