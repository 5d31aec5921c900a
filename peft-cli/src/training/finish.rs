//! The end of a run: the adapter with its card, a merged model, samples, the report, the result.

use crate::card::{Card, Written};
use crate::output::Output;
use crate::recipe::Settings;
use crate::training::forecast::forecast;
use crate::training::session::Session;
use crate::training::setup::ADAPTER;
use crate::training::words::sentence;
use crate::watch::summary::{Fact, Memory, Run, Summary, Tensors};
use crate::watch::{events, report};
use anyhow::Result;
use peft_core::estimate::Plan;
use peft_core::hub;
use peft_core::io::IfExists;
use peft_core::report::commas;
use peft_core::train::Evaluation;
use peft_core::{TaskType, device};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// What `peft train` says of a run on stdout.
#[derive(Debug, Serialize)]
pub struct Trained {
    adapter: String,
    report: String,
    seed: u64,
    steps: u64,
    /// The step that the adapter is of.
    step: u64,
    stopped_early: bool,
    seconds: f64,
    tokens: u64,
    /// Mean loss of the last epoch's steps.
    loss: Option<f64>,
    eval_loss: Option<f64>,
    metrics: BTreeMap<&'static str, f64>,
    memory_predicted: Option<i64>,
    memory_measured: i64,
    merged: Option<String>,
}

/// A run that is at its end, for a report of several.
#[derive(Debug)]
pub struct Finished {
    summary: Summary,
    run: Run,
    eval: BTreeMap<&'static str, f64>,
}

/// A figure of several seeds.
#[derive(Debug, Serialize)]
struct Spread {
    mean: f64,
    /// The standard deviation of a sample: over n − 1.
    std: f64,
}

/// What several seeds come to: one report of all, and the spread of their evaluations.
pub fn together(settings: &Settings, all: Vec<Finished>, output: &Output) -> Result<()> {
    let mut figures: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for (name, value) in all.iter().flat_map(|one| &one.eval) {
        figures.entry(name).or_default().push(*value);
    }
    let spread = |values: Vec<f64>| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        Spread { mean, std: (squares / (n - 1.0).max(1.0)).sqrt() }
    };
    let figures: BTreeMap<_, _> = figures.into_iter().map(|(name, values)| (name, spread(values))).collect();
    let page = settings.output.join(report::FILE);
    let count = all.len();
    let Some(first) = all.first().map(|one| one.summary.clone()) else { return Ok(()) };
    let runs: Vec<Run> = all.into_iter().map(|one| one.run).collect();
    let facts = first.facts.into_iter().filter(|fact| fact.name != "seed").collect();
    report::write(&page, &Summary { facts, ..first }, &runs)?;
    let result = json!({ "seeds": settings.seeds, "report": page, "evaluation": figures });
    output.result(&result, |_| {
        let figures = figures.iter().map(|(name, s)| format!(", {name} {:.4} ± {:.4}", s.mean, s.std));
        format!("report of {count} seeds: {}{}", page.display(), figures.collect::<String>())
    })
}

/// Writes what the run was for. `stopped_early`: before its last step, for want of a better evaluation.
pub fn write(mut session: Session<'_>, stopped_early: bool) -> Result<Finished> {
    let steps = session.run.steps();
    session.best()?;
    let step = session.run.steps();
    let samples = session.samples.after(&session.peft, step)?;
    samples.iter().try_for_each(|event| session.record(event))?;
    let evaluation = match &session.eval {
        Some(eval) => Some(session.run.evaluate(eval.as_ref(), session.settings().eval_batch)?),
        None => None,
    };
    let adapter = session.peft.report(&[ADAPTER])?;
    save(&session)?;
    let merged = session.order.merge();
    if let Some(out) = &merged {
        let model = session.peft.merged(&[ADAPTER])?;
        hub::save_with(&model, out, Some(&session.model), IfExists::Replace)?;
    }
    let facts = facts(&session, step, steps);
    let (trainable, all) = (adapter.trainable.unsigned_abs(), adapter.all.unsigned_abs());
    let config = session.peft.adapter_config(ADAPTER)?.unwrap_or_default();
    let text = |field: &str| config.get(field).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let card = Card {
        base: text("base_model_name_or_path"),
        peft_type: text("peft_type"),
        task: serde_json::from_value::<TaskType>(config.get("task_type").cloned().unwrap_or_default()).ok(),
        classes: session.peft.classes(&[ADAPTER])?.to_vec(),
        trainable,
        all,
        training: facts.clone(),
        evaluation: evaluation.as_ref().map(figures).unwrap_or_default(),
        versions: versions(),
    };
    if card.write(&session.place.dir)? == Written::Kept {
        session.output.note("README.md was edited, and stays as it is");
    }
    let plan = forecast(&session.peft, session.settings(), &session.about)
        .inspect_err(|e| session.output.note(format!("memory was not forecast: {e:#}")))
        .ok()
        .flatten();
    let (log, _) = events(&session.place.dir)?;
    let loss = last_epoch(&log, session.run.steps_per_epoch());
    let page = session.place.dir.join(report::FILE);
    let summary = Summary {
        title: format!("{} on {}", session.settings().method.entry.title, session.settings().model),
        outcome: if stopped_early {
            format!("Stopped after {steps} steps: no better evaluation.")
        } else {
            format!(
                "Finished after {steps} steps ({:.3} epochs).",
                steps as f64 / session.run.steps_per_epoch() as f64
            )
        },
        facts,
        recipe: session.progress.recipe.text()?,
        trainable,
        all,
        tensors: adapter.rows.iter().map(tensors).collect(),
        memory: memory(plan.as_ref(), session.progress.memory),
        environment: versions(),
        warnings: session.warnings.clone(),
    };
    let name = format!("seed {}", session.seed());
    let run = Run { name, events: log };
    report::write(&page, &summary, std::slice::from_ref(&run))?;
    let trained = Trained {
        adapter: session.place.dir.display().to_string(),
        report: page.display().to_string(),
        seed: session.seed(),
        steps,
        step,
        stopped_early,
        seconds: session.progress.seconds,
        tokens: session.progress.tokens,
        loss,
        eval_loss: evaluation.as_ref().map(|e| e.loss),
        metrics: evaluation.as_ref().map(|e| e.metrics.clone()).unwrap_or_default(),
        memory_predicted: plan.as_ref().map(Plan::total),
        memory_measured: session.progress.memory,
        merged: merged.map(|dir| dir.display().to_string()),
    };
    session.output.result(&trained, |t| {
        let mut lines = vec![format!("adapter: {}", t.adapter), format!("report: {}", t.report)];
        lines.extend(t.loss.map(|loss| format!("training loss of the last epoch: {loss:.4}")));
        lines.extend(evaluation.as_ref().map(|e| format!("evaluation: {}", sentence(e))));
        lines.extend(t.merged.as_ref().map(|dir| format!("merged model: {dir}")));
        lines.join("\n")
    })?;
    let eval_loss = trained.eval_loss.map(|loss| ("loss", loss));
    let eval = trained.metrics.into_iter().chain(eval_loss).collect();
    Ok(Finished { summary, run, eval })
}

/// The adapter, with what it knows of its base.
fn save(session: &Session<'_>) -> Result<()> {
    let dir = &session.place.dir;
    let made = session
        .peft
        .provenance(ADAPTER)?
        .recipe(serde_json::to_value(&session.progress.recipe)?)
        .version("libtorch", device::LIBTORCH)
        .tokenizer_of(&session.model)?;
    Ok(session.peft.save_with_provenance(ADAPTER, dir, IfExists::Replace, &made)?)
}

/// What was trained on what.
fn facts(session: &Session<'_>, step: u64, steps: u64) -> Vec<Fact> {
    let s = session.settings();
    let about = &session.about;
    vec![
        Fact::new("base", &s.model),
        Fact::new("method", s.method.entry.title),
        Fact::new("data", s.data.display()),
        Fact::new("rows", commas(about.rows as i64)),
        Fact::new("tokens a pass", commas(about.tokens as i64)),
        Fact::new(
            "steps",
            if step == steps { steps.to_string() } else { format!("{steps}, the best is {step}") },
        ),
        Fact::new("rows a step", s.batch),
        Fact::new("learning rate", s.lr),
        Fact::new("seed", session.seed()),
    ]
}

fn figures(evaluation: &Evaluation) -> Vec<Fact> {
    let loss = Fact::new("loss", format!("{:.4}", evaluation.loss));
    let others = evaluation.metrics.iter().map(|(name, value)| Fact::new(name, format!("{value:.4}")));
    std::iter::once(loss).chain(others).collect()
}

fn versions() -> Vec<Fact> {
    vec![Fact::new("peft-rs", env!("CARGO_PKG_VERSION")), Fact::new("libtorch", device::LIBTORCH)]
}

fn tensors(row: &peft_core::ReportRow) -> Tensors {
    let (count, parameters) = (row.count.unsigned_abs(), row.trainable.unsigned_abs());
    Tensors { name: row.name.clone(), count, shape: row.shape.clone(), parameters }
}

/// Mean loss of the steps of the last epoch.
fn last_epoch(log: &[crate::watch::Event], steps: u64) -> Option<f64> {
    let losses = log.iter().rev().filter_map(|event| match event {
        crate::watch::Event::Step(step) => Some(step.loss),
        _ => None,
    });
    let losses: Vec<f64> = losses.take(usize::try_from(steps).unwrap_or(usize::MAX)).collect();
    (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
}

/// The forecast by part, and what was measured in all.
fn memory(plan: Option<&Plan>, measured: i64) -> Vec<Memory> {
    let part = |part: &str, bytes: i64| Memory {
        part: part.to_owned(),
        predicted: u64::try_from(bytes).ok(),
        measured: None,
    };
    let mut parts: Vec<Memory> = plan.map_or(Vec::new(), |plan| {
        let held = plan.estimate.memory;
        vec![
            part("base", held.base),
            part("adapter", held.adapter),
            part("gradients", held.gradients),
            part("optimizer", held.optimizer),
            part("activations", plan.activations),
        ]
    });
    parts.push(Memory {
        part: "all".into(),
        predicted: plan.and_then(|plan| u64::try_from(plan.total()).ok()),
        measured: u64::try_from(measured).ok(),
    });
    parts
}
