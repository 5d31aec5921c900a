//! A small language model that has read a catalogue, and its fine-tuning: the lesson's `train_with_peft`.

use super::text::{Example, PAD, Text};
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::estimate::Blueprint;
use peft_core::models::llama;
use peft_core::seam::{Init, SiteKind};
use peft_core::train::{AdamConfig, Schedule, Trainer, next_token_loss};
use peft_core::{Batch, Model, Params, Pass, Peft};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// Steps of pre-training; rows of each, and the most tokens of one.
const PRETRAINING: u64 = 500;
const ROWS: usize = 24;
const LONGEST: usize = 22;
/// Rows at a time in a test.
const TEST: usize = 96;

/// A Llama of this many words.
pub fn config(vocab: i64) -> Value {
    json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": true
    })
}

/// A model of a configuration with fresh weights: N(0, 0.02²), and ones for norms. Frozen.
pub fn fresh(config: &Value, device: Device) -> Result<Peft> {
    let place = "a small model";
    let params = Params::new(place, device);
    for site in &Blueprint::read(config, place)?.outline().sites {
        let init = match site.kind {
            SiteKind::Norm => Init::Constant(1.0),
            _ => Init::Normal { std: 0.02 },
        };
        if !site.shape.is_empty() && site.tied.is_none() {
            params.insert(&format!("{}.weight", site.name), init.tensor(&site.shape, device)?, false)?;
        }
    }
    Ok(Peft::new(params, llama::config(config, place)?)?)
}

/// The catalogue, and a model that has read it; everything is drawn from the setting's seed.
pub fn read(setting: Setting, page: &Page) -> Result<(Text, Peft)> {
    tch::manual_seed(setting.seed);
    let text = Text::new()?;
    let bar = page.progress("pre-training", PRETRAINING);
    let base = pretrained(&text, setting.device, || bar.inc(1))?;
    bar.finish_and_clear();
    Ok((text, base))
}

/// A model that has read the catalogue, two entries `section : description` at a time, and can go on with it. It knows
/// which words go with which section; nobody has asked it for the section of a description. Frozen. `read` is told of
/// every step.
fn pretrained(text: &Text, device: Device, mut read: impl FnMut()) -> Result<Peft> {
    let peft = fresh(&config(text.vocab), device)?;
    peft.base().set_trainable(|_| true)?;
    let model = peft.view(&[])?;
    let schedule = Schedule::Linear { warmup: PRETRAINING / 10, total: PRETRAINING };
    let mut trainer = Trainer::for_base(&peft, AdamConfig::default(), 5e-3, schedule)?;
    while trainer.steps() < PRETRAINING {
        let left = (PRETRAINING - trainer.steps()) as usize;
        for entries in shuffled(&text.train)?.chunks_exact(2 * ROWS).take(left) {
            let row = |two: &[&Example]| two.iter().flat_map(|e| text.entry(e)).take(LONGEST).collect();
            let rows: Vec<Vec<i64>> = entries.chunks(2).map(row).collect();
            let batch = Batch::padded(&rows, PAD, device)?;
            let labels = batch.next_token_labels()?;
            trainer.step(&next_token_loss(&model.forward(&batch, Pass::train())?, &labels)?)?;
            read();
        }
    }
    peft.base().freeze()?;
    Ok(peft)
}

/// The examples in an order that is drawn.
fn shuffled(examples: &[Example]) -> Result<Vec<&Example>> {
    let order = Tensor::f_randperm(examples.len() as i64, (Kind::Int64, Device::Cpu))?;
    Ok(Vec::<i64>::try_from(order)?.into_iter().map(|i| &examples[i as usize]).collect())
}

/// The lesson's `TrainingArguments`, as far as they change a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arguments {
    pub epochs: u64,
    /// Rows of a part of a step, and parts of a step.
    pub batch: usize,
    pub accumulation: usize,
    pub lr: f64,
    /// Steps until the rate is reached, or their share of all.
    pub warmup: Warmup,
}

/// How long a warm-up is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    Steps(u64),
    Tenth,
}

impl Arguments {
    /// Updates of an epoch over so many rows.
    pub fn steps(&self, rows: usize) -> u64 {
        rows.div_ceil(self.batch * self.accumulation) as u64
    }

    fn schedule(&self, rows: usize) -> Schedule {
        let total = self.epochs * self.steps(rows);
        let warmup = match self.warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Tenth => total / 10,
        };
        Schedule::Linear { warmup, total }
    }
}

/// Trains the adapter `name` to answer with the section; the loss of every update. `epoch` is told when one is over.
pub fn train(
    peft: &Peft,
    name: &str,
    (text, rows): (&Text, &[Example]),
    args: &Arguments,
    mut epoch: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<f64>> {
    let device = peft.base().device();
    let model = peft.view(&[name])?;
    let schedule = args.schedule(rows.len());
    // What transformers' TrainingArguments have otherwise: AdamW without decay, gradients clipped at 1.
    let adam = AdamConfig { weight_decay: 0.0, ..AdamConfig::default() };
    let mut trainer = Trainer::new(peft, &[name], adam, args.lr, schedule)?.clip(1.0);
    let mut losses = Vec::new();
    for number in 1..=args.epochs {
        for step in shuffled(rows)?.chunks(args.batch * args.accumulation) {
            let parts = step.chunks(args.batch).map(|part| -> Result<(Tensor, f64)> {
                let (batch, labels) = text.questions(part, device)?;
                let loss = next_token_loss(&model.forward(&batch, Pass::train())?, &labels)?;
                Ok((loss, part.len() as f64))
            });
            losses.push(trainer.step_accumulated(parts)?.loss);
        }
        epoch(number)?;
    }
    Ok(losses)
}

/// How many of the test rows get their section, of all words, as the next one.
pub fn correct(peft: &Peft, active: &[&str], text: &Text) -> Result<i64> {
    let _guard = tch::no_grad_guard();
    let model = peft.view(active)?;
    let rows: Vec<&Example> = text.test.iter().collect();
    rows.chunks(TEST).try_fold(0, |right, rows| {
        let (batch, labels) = text.questions(rows, peft.base().device())?;
        let logits = model.forward(&batch, Pass::eval())?;
        // A label is the answer to the token before it; virtual tokens stand in front.
        let length = batch.ids()?.size2()?.1;
        let answers = logits.f_narrow(1, logits.size3()?.1 - length, length - 1)?.f_argmax(-1, false)?;
        let same = answers.f_eq_tensor(&labels.f_narrow(1, 1, length - 1)?)?;
        Ok(right + same.f_sum(Kind::Int64)?.f_int64_value(&[])?)
    })
}
