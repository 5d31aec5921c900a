//! Lesson 000's classifier with a prefix, trained for another task: there a prefix can be looked at.

use super::pictures::{Matrix, PREFIX_LEN};
use super::probe::Probe;
use crate::lesson000::Lesson;
use crate::{Page, Setting};
use anyhow::{Context, Result};
use peft_core::methods::{Gate, ZeroInitAttentionConfig};
use peft_core::models::TinyConfig;
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
use peft_core::{Batch, Model, Pass};
use tch::{Device, Kind, Tensor};

/// Name of the prefix over the classifier.
pub const GATED: &str = "gated";

const STEPS: u64 = 150;
const LR: f64 = 5e-2;

/// The classifier with the adapters `gated`, three gated tokens a layer as in section 3, and `probe`.
#[derive(Debug)]
pub struct Classifier {
    lesson: Lesson,
    probe: Probe,
    /// Loss on the new task at each step.
    pub losses: Vec<f64>,
    /// Training rows that are right before and after, and all of them.
    pub right: [i64; 3],
}

impl Classifier {
    /// Trains the prefix, over the frozen classifier, to name each class by the next number.
    pub fn train(setting: Setting, page: &Page) -> Result<Self> {
        let mut lesson = Lesson::new(setting)?;
        let probe = Probe::default();
        lesson.peft.add("probe", probe.clone())?;
        let num_virtual_tokens = PREFIX_LEN as i64;
        let config =
            ZeroInitAttentionConfig { num_virtual_tokens, gate: Gate::Sigmoid, ..Default::default() };
        lesson.peft.add(GATED, config)?;
        let classes = TinyConfig::default().classes;
        let next = lesson.train.classes.f_add_scalar(1)?.f_remainder(classes)?;
        let mut trainer = Trainer::new(&lesson.peft, &[GATED], AdamConfig::adam(), LR, Schedule::Constant)?;
        let model = lesson.peft.view(&[GATED])?;
        let before = right(&model.forward(&lesson.train.batch, Pass::eval())?, &next)?;
        let bar = page.progress("training a prefix", STEPS);
        let mut losses = Vec::new();
        for _ in 0..STEPS {
            let loss = cross_entropy(&model.forward(&lesson.train.batch, Pass::train())?, &next)?;
            losses.push(trainer.step(&loss)?.loss);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let after = right(&model.forward(&lesson.train.batch, Pass::eval())?, &next)?;
        let right = [before, after, next.size1()?];
        Ok(Self { lesson, probe, losses, right })
    }

    /// Attention weights of head 0 of the first layer for the first training row, with the named adapters.
    pub fn attention(&self, active: &[&str]) -> Result<Matrix> {
        let _guard = tch::no_grad_guard();
        let active: Vec<&str> = std::iter::once("probe").chain(active.iter().copied()).collect();
        let row = Batch::dense(self.lesson.train.batch.ids()?.f_narrow(0, 0, 1)?);
        drop(self.lesson.peft.view(&active)?.forward(&row, Pass::eval())?);
        let layers = self.probe.take();
        let weights = layers.first().context("no attention was seen")?;
        Ok(Vec::try_from(weights.f_get(0)?.f_get(0)?.f_to(Device::Cpu)?.f_to_kind(Kind::Double)?)?)
    }

    /// What came of the training, in a sentence.
    pub fn learned(&self) -> String {
        let [before, after, all] = self.right;
        let [first, last] = [self.losses.first(), self.losses.last()].map(|l| l.copied().unwrap_or(f64::NAN));
        format!(
            "That prefix was trained to turn the frozen classifier to other labels: loss {first:.2} to {last:.2}, right \
             {before} to {after} of {all} training rows. So prefixes do work for classification."
        )
    }
}

fn right(logits: &Tensor, classes: &Tensor) -> Result<i64> {
    Ok(logits.f_argmax(1, false)?.f_eq_tensor(classes)?.f_sum(Kind::Int64)?.f_int64_value(&[])?)
}
