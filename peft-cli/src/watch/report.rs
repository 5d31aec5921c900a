//! `report.html`: a run on one page, without a script and without a network.

use crate::watch::curves::{curves, decimals, short, shown};
use crate::watch::progress::Span;
use crate::watch::summary::{Fact, Run, Sample, Summary};
use anyhow::{Context, Result};
use minijinja::Environment;
use minijinja::value::Serde;
use peft_core::estimate::human_bytes;
use peft_core::io::write_atomically;
use peft_core::report::commas;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Name of the page in a run's directory.
pub const FILE: &str = "report.html";

/// The page's frame; it is HTML, so that what is put in is text and never markup.
const PAGE: &str = include_str!("report.html");

/// Writes the page, over one that is there.
///
/// # Errors
/// A place that cannot be written to.
pub fn write(path: &Path, summary: &Summary, runs: &[Run]) -> Result<()> {
    let html = html(summary, runs)?;
    let fill = |error| peft_core::Error::File { path: path.to_owned(), error };
    write_atomically(path, |out| out.write_all(html.as_bytes()).map_err(fill))?;
    Ok(())
}

/// The page.
///
/// # Errors
/// A curve that cannot be drawn.
pub fn html(summary: &Summary, runs: &[Run]) -> Result<String> {
    let mut figures = Vec::new();
    for (number, curve) in curves(runs).iter().enumerate() {
        figures.push(curve.svg(number).with_context(|| format!("figure `{}`", curve.title))?);
    }
    let notes = runs.iter().flat_map(|run| {
        let several = runs.len() > 1;
        let said = run.events.iter().filter_map(|e| match e {
            crate::watch::Event::Note { step, text } => Some((step, text)),
            _ => None,
        });
        said.map(move |(step, text)| match several {
            true => format!("{}, update {step}: {text}", run.name),
            false => format!("Update {step}: {text}"),
        })
    });
    let page = Page {
        summary,
        tiles: tiles(summary, runs),
        figures,
        evaluations: evaluations(runs),
        samples: runs.iter().flat_map(|run| samples(run, runs.len() > 1)).collect(),
        counts: counts(summary),
        tensors: tensors(summary),
        memory: memory(summary),
        notes: notes.collect(),
    };
    let mut environment = Environment::new();
    environment.add_template(FILE, PAGE)?;
    let html = environment.get_template(FILE)?.render(Serde(&page))?;
    Ok(html + "\n")
}

/// What the page's frame is filled with, as text.
#[derive(Serialize)]
struct Page<'a> {
    summary: &'a Summary,
    tiles: Vec<Fact>,
    figures: Vec<String>,
    evaluations: Option<Evaluations>,
    samples: Vec<Sample>,
    counts: Option<String>,
    tensors: Vec<[String; 4]>,
    memory: Vec<[String; 4]>,
    notes: Vec<String>,
}

/// The figures that are looked for first.
fn tiles(summary: &Summary, runs: &[Run]) -> Vec<Fact> {
    let mut tiles = Vec::new();
    let several = runs.len() > 1;
    let mut mean = |name: &str, values: Vec<f64>| {
        if !values.is_empty() {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let spread = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let value = match several && values.len() > 1 {
                true => format!("{} ± {:.*}", short(mean), decimals(mean), spread),
                false => short(mean),
            };
            tiles.push(Fact::new(name, value));
        }
    };
    let epoch_loss = |run: &Run| {
        let last = run.steps().next_back()?.epoch;
        let of_it: Vec<f64> = run.steps().filter(|s| s.epoch > last - 1.0).map(|s| s.loss).collect();
        Some(of_it.iter().sum::<f64>() / of_it.len() as f64)
    };
    mean("Training loss, last epoch", runs.iter().filter_map(epoch_loss).collect());
    mean("Evaluation loss, best", runs.iter().filter_map(|r| Some(r.best()?.1)).collect());
    let names: BTreeSet<&String> = runs.iter().flat_map(Run::evals).flat_map(|(.., f)| f.keys()).collect();
    for name in names {
        let at_best = |run: &Run| run.best()?.2.get(name).copied();
        mean(&format!("{} there", shown(name)), runs.iter().filter_map(at_best).collect());
    }
    if summary.all > 0 {
        let percent = 100.0 * summary.trainable as f64 / summary.all as f64;
        tiles.push(Fact::new("Trained parameters", format!("{} ({percent:.2} %)", many(summary.trainable))));
    }
    let (tokens, seconds) = runs.iter().map(Run::work).fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    if let Some(time) = Duration::try_from_secs_f64(seconds).ok().filter(|_| seconds > 0.0) {
        tiles.push(Fact::new("Time in updates", Span(time)));
        tiles.push(Fact::new(
            "Tokens",
            format!("{}, {} a second", many(tokens), many((tokens as f64 / seconds) as u64)),
        ));
    }
    tiles
}

#[derive(Serialize)]
struct Evaluations {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn evaluations(runs: &[Run]) -> Option<Evaluations> {
    let names: BTreeSet<&String> = runs.iter().flat_map(Run::evals).flat_map(|(.., f)| f.keys()).collect();
    let several = runs.len() > 1;
    let row = |run: &Run| -> Vec<Vec<String>> {
        let best = run.best().map(|(at, ..)| at);
        let each = run.evals().map(|(at, loss, figures)| {
            let mark = if best == Some(at) { " (best)" } else { "" };
            let mut row = if several { vec![run.name.clone()] } else { Vec::new() };
            row.extend([at.to_string(), format!("{}{mark}", short(loss))]);
            row.extend(names.iter().map(|n| figures.get(*n).map_or_else(|| "–".to_owned(), |v| short(*v))));
            row
        });
        each.collect()
    };
    let rows: Vec<Vec<String>> = runs.iter().flat_map(row).collect();
    let mut head = if several { vec!["Run".to_owned()] } else { Vec::new() };
    head.extend(["Update".to_owned(), "Loss".to_owned()]);
    head.extend(names.iter().map(|n| shown(n)));
    (!rows.is_empty()).then_some(Evaluations { head, rows })
}

fn samples(run: &Run, several: bool) -> Vec<Sample> {
    let mut samples = run.samples();
    if several {
        samples.iter_mut().for_each(|s| s.run = Some(run.name.clone()));
    }
    samples
}

fn counts(summary: &Summary) -> Option<String> {
    let report = peft_core::Report {
        trainable: i64::try_from(summary.trainable).ok()?,
        all: i64::try_from(summary.all).ok().filter(|all| *all > 0)?,
        rows: Vec::new(),
    };
    let (trainable, all) = (commas(report.trainable), commas(report.all));
    Some(format!("{trainable} of {all} parameters are trained, {:.4} %.", report.percent()))
}

fn tensors(summary: &Summary) -> Vec<[String; 4]> {
    let row = |t: &super::summary::Tensors| {
        let shape = t.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ");
        [t.name.clone(), t.count.to_string(), shape, many(t.parameters)]
    };
    summary.tensors.iter().map(row).collect()
}

/// Part, forecast, measured, and how far the forecast is off.
fn memory(summary: &Summary) -> Vec<[String; 4]> {
    let bytes = |b: Option<u64>| match b.and_then(|b| i64::try_from(b).ok()) {
        Some(bytes) => human_bytes(bytes),
        None => "–".to_owned(),
    };
    let row = |m: &super::summary::Memory| {
        let off = m.predicted.zip(m.measured.filter(|m| *m > 0));
        let off = off.map(|(p, m)| format!("{:+.1} %", 100.0 * (p as f64 / m as f64 - 1.0)));
        [m.part.clone(), bytes(m.predicted), bytes(m.measured), off.unwrap_or_else(|| "–".to_owned())]
    };
    summary.memory.iter().map(row).collect()
}

fn many(n: u64) -> String {
    i64::try_from(n).map_or_else(|_| n.to_string(), commas)
}
