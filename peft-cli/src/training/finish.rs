//! The end of a run: the adapter, a merged model, samples, the result.

use crate::recipe::Settings;
use crate::training::session::{Session, sentence};
use crate::training::setup::ADAPTER;
use crate::watch::Event;
use anyhow::Result;
use peft_core::generate::{GenerateConfig, GenerationSettings, generate};
use peft_core::hub;
use peft_core::io::IfExists;
use peft_core::tch::Device;
use peft_core::text::TextEncoder;
use peft_core::{Batch, Peft};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    pub steps: u64,
    pub stopped_early: bool,
    pub seconds: f64,
}

/// What `peft train` says of a run on stdout.
#[derive(Debug, Serialize)]
struct Trained {
    adapter: String,
    seed: u64,
    steps: u64,
    /// The step that the adapter is of.
    step: u64,
    stopped_early: bool,
    seconds: f64,
    tokens: u64,
    eval_loss: Option<f64>,
    metrics: BTreeMap<&'static str, f64>,
    merged: Option<String>,
}

/// Prompts whose answers are shown, without the adapter and with it.
#[derive(Debug)]
pub struct Samples {
    prompts: Vec<String>,
    answers: Vec<String>,
    encoder: TextEncoder,
    config: GenerateConfig,
    device: Device,
}

impl Samples {
    pub fn new(settings: &Settings, model: &Path, encoder: TextEncoder, device: Device) -> Result<Self> {
        let defaults = GenerateConfig { max_new_tokens: 40, ..Default::default() };
        let config = match settings.samples.is_empty() {
            true => defaults,
            false => GenerationSettings::read(model, defaults)?.config,
        };
        // The likeliest tokens: both answers are to differ by the adapter alone.
        let config = GenerateConfig { sampling: None, ..config };
        Ok(Self { prompts: settings.samples.clone(), answers: Vec::new(), encoder, config, device })
    }

    fn answer(&self, peft: &Peft, active: &[&str], prompt: &str) -> Result<String> {
        let batch = Batch::padded(&[self.encoder.ids(prompt)?], self.config.pad_token_id, self.device)?;
        let new = generate(&peft.view(active)?, &batch, &self.config)?;
        let mut ids = Vec::<i64>::try_from(new.f_reshape([-1])?)?;
        ids.truncate(ids.iter().position(|id| self.config.eos_token_ids.contains(id)).unwrap_or(ids.len()));
        Ok(self.encoder.text(&ids)?)
    }

    /// What the model says without the adapter.
    pub fn before(&mut self, peft: &Peft) -> Result<()> {
        self.answers = self.prompts.iter().map(|p| self.answer(peft, &[], p)).collect::<Result<_>>()?;
        Ok(())
    }

    /// What it says with it, beside what it said without.
    fn after(&mut self, peft: &Peft, step: u64) -> Result<Vec<Event>> {
        if self.answers.is_empty() {
            self.before(peft)?; // the run was resumed
        }
        let both = self.prompts.iter().zip(&self.answers);
        both.map(|(prompt, before)| {
            let text = self.answer(peft, &[ADAPTER], prompt)?;
            Ok(Event::Sample { step, prompt: prompt.clone(), before: Some(before.clone()), text })
        })
        .collect()
    }
}

/// Writes what the run was for.
pub fn write(mut session: Session<'_>, finished: &Finished) -> Result<()> {
    session.best()?;
    let step = session.run.steps();
    for event in session.samples.after(&session.peft, step)? {
        session.record(&event)?;
    }
    let evaluation = match &session.eval {
        Some(eval) => Some(session.run.evaluate(eval.as_ref(), session.order.settings.eval_batch)?),
        None => None,
    };
    let dir = &session.place.dir;
    session.peft.save_with(ADAPTER, dir, IfExists::Replace)?;
    let merged = session.order.settings.merge.as_ref();
    if let Some(out) = merged {
        let model = session.peft.merged(&[ADAPTER])?;
        hub::save_with(&model, out, Some(&session.model), IfExists::Replace)?;
    }
    let trained = Trained {
        adapter: dir.display().to_string(),
        seed: session.order.seed,
        steps: finished.steps,
        step,
        stopped_early: finished.stopped_early,
        seconds: finished.seconds,
        tokens: session.progress.tokens,
        eval_loss: evaluation.as_ref().map(|e| e.loss),
        metrics: evaluation.as_ref().map(|e| e.metrics.clone()).unwrap_or_default(),
        merged: merged.map(|dir| dir.display().to_string()),
    };
    session.output.result(&trained, |t| {
        let mut lines = vec![format!("adapter: {}", t.adapter)];
        lines.extend(evaluation.as_ref().map(|e| format!("evaluation: {}", sentence(e))));
        lines.extend(t.merged.as_ref().map(|dir| format!("merged model: {dir}")));
        lines.join("\n")
    })
}
