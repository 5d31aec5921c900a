//! A pre-trained model and a task it was never asked for: what a lesson on fine-tuning can look into.
//!
//! The task is the benchmark's (`peft_bench::synthetic`), the model a lesson's transformer of one layer, twice as wide
//! as there: 64 leaves room for a difference between "low rank" and "small".

use super::gaussian_start;
use crate::{Page, Setting};
use anyhow::{Context, Result};
use peft_bench::synthetic::{Rows, draw};
use peft_bench::task::TorchShuffle;
use peft_core::methods::{FullConfig, LoraConfig};
use peft_core::models::TinyConfig;
use peft_core::seam::PREFIX;
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
use peft_core::{Batch, Model, Pass, Peft};
use tch::{Kind, Tensor};

/// Rows of a step.
const BATCH: usize = 64;
/// Half of the rows that the task has to test on: a look at each of many models.
const TEST_ROWS: i64 = 2_000;
const PRETRAIN_LR: f64 = 5e-3;
pub const FULL_LR: f64 = 3e-3;
pub const LORA_LR: f64 = 1e-2;
/// The name of full fine-tuning among the adapters.
pub const FULL: &str = "full";
/// The weight matrices of the transformer's layer, which LoRA adapts.
pub const MATRICES: [&str; 4] = ["attn.in_proj", "attn.out_proj", "ff.0", "ff.2"];

/// Where a LoRA's A starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// N(0, 0.01²)
    Lesson,
    /// U(±1/√in)
    Peft,
}

/// How long to train.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    pub pretrain: u64,
    pub tune: u64,
}

/// The pre-trained model with its fine-tunings, and the new task.
#[derive(Debug)]
pub struct Transfer {
    pub peft: Peft,
    seed: i64,
    steps: u64,
    train: Rows,
    test: Rows,
    /// Share of right answers on held-out rows of the pre-training tasks.
    pub pretrained: f64,
}

impl Transfer {
    /// Draws the data, and a model, and pre-trains it.
    pub fn new(setting: Setting, steps: Steps, page: &Page) -> Result<Self> {
        let Setting { seed, device } = setting;
        let on = |rows: Rows, most: i64| -> Result<Rows> {
            let n = rows.y.size1()?.min(most);
            Ok(Rows {
                x: rows.x.f_narrow(0, 0, n)?.f_to(device)?,
                y: rows.y.f_narrow(0, 0, n)?.f_to(device)?,
            })
        };
        let data = draw(seed)?;
        tch::manual_seed(10_000 + seed);
        let config = TinyConfig { hidden: 64, layers: 1, ffn: 256, ..TinyConfig::default() };
        let peft = Peft::new(config.init(device)?, config)?;
        peft.base().set_trainable(|_| true)?;
        let run = Run { lr: PRETRAIN_LR, steps: steps.pretrain, title: "pre-training" };
        fit(&peft, None, &on(data.pretrain, i64::MAX)?, run, page)?;
        peft.base().freeze()?;
        let pretrained = accuracy(&peft.view(&[])?, &on(data.pretrain_test, TEST_ROWS)?)?;
        Ok(Self {
            peft,
            seed,
            steps: steps.tune,
            train: on(data.train, i64::MAX)?,
            test: on(data.test, TEST_ROWS)?,
            pretrained,
        })
    }

    /// Full fine-tuning, as the adapter [`FULL`].
    pub fn tune_fully(&mut self, page: &Page) -> Result<()> {
        self.peft.add(FULL, FullConfig::default())?;
        self.tune(FULL, FULL_LR, 0, page)
    }

    /// A LoRA of rank r with alpha = 2r at [`MATRICES`], with the lesson's start of A or PEFT's; runs that differ in `draw`
    /// differ in all that is drawn.
    pub fn tune_lora(&mut self, name: &str, r: i64, draw: i64, how: (Start, f64), page: &Page) -> Result<()> {
        let (start, lr) = how;
        tch::manual_seed(20_000 + self.seed + 1_000 * draw);
        let targets = MATRICES.into();
        let lora = LoraConfig { r, lora_alpha: 2.0 * r as f64, targets, ..LoraConfig::default() };
        if start == Start::Peft {
            self.peft.add(name, lora)?;
        } else {
            let mut tensors = Vec::new();
            for matrix in MATRICES {
                let (out, inp) = self.weight(matrix)?.size2()?;
                tensors.extend(gaussian_start(&format!("layers.0.{matrix}"), [out, inp], r)?);
            }
            self.peft.add_with(name, lora, tensors)?;
        }
        self.tune(name, lr, draw, page)
    }

    fn tune(&self, name: &str, lr: f64, draw: i64, page: &Page) -> Result<()> {
        tch::manual_seed(30_000 + self.seed + 1_000 * draw);
        let run = Run { lr, steps: self.steps, title: name };
        fit(&self.peft, Some(name), &self.train, run, page)
    }

    /// Share of the new task's test rows that the model with these adapters gets right.
    pub fn accuracy(&self, active: &[&str]) -> Result<f64> {
        accuracy(&self.peft.view(active)?, &self.test)
    }

    /// Logits `[rows, classes]` on the new task's test rows.
    pub fn logits(&self, active: &[&str]) -> Result<Tensor> {
        logits(&self.peft.view(active)?, &self.test)
    }

    /// Rows to test on.
    pub fn test_rows(&self) -> usize {
        self.test.y.numel()
    }

    /// W before fine-tuning, `[out, in]`.
    pub fn weight(&self, matrix: &str) -> Result<Tensor> {
        let tensors = self.peft.base().tensors();
        Ok(tensors.get(&parameter(matrix)).with_context(|| format!("no weight of `{matrix}`"))?.f_detach()?)
    }

    /// ΔW of full fine-tuning: the weight after it less the weight before, `[out, in]`.
    pub fn change(&self, matrix: &str) -> Result<Tensor> {
        let tensors = self.peft.params(FULL)?.tensors();
        let tuned = tensors.get(&format!("{PREFIX}{}", parameter(matrix)));
        Ok(tuned
            .with_context(|| format!("no tuned weight of `{matrix}`"))?
            .f_detach()?
            .f_sub(&self.weight(matrix)?)?)
    }

    /// A trained A of a LoRA, `[r, in]`.
    pub fn lora_a(&self, name: &str, matrix: &str) -> Result<Tensor> {
        let tensors = self.peft.params(name)?.tensors();
        let a = tensors.get(&format!("{PREFIX}layers.0.{matrix}.lora_A.weight"));
        Ok(a.with_context(|| format!("no A of `{matrix}`"))?.f_detach()?)
    }
}

/// The full name of a matrix: PyTorch packs the attention's projections under a name of its own.
fn parameter(matrix: &str) -> String {
    let leaf = if matrix == "attn.in_proj" { "_weight" } else { ".weight" };
    format!("layers.0.{matrix}{leaf}")
}

/// One training: peak learning rate, steps, and what its bar is called.
#[derive(Clone, Copy)]
struct Run<'a> {
    lr: f64,
    steps: u64,
    title: &'a str,
}

/// Trains the adapter, or the base where there is none.
fn fit(peft: &Peft, adapter: Option<&str>, rows: &Rows, run: Run<'_>, page: &Page) -> Result<()> {
    let (adam, schedule) = (AdamConfig::adam(), Schedule::Cosine { warmup: 0, total: run.steps });
    let mut trainer = match adapter {
        Some(name) => Trainer::new(peft, &[name], adam, run.lr, schedule)?,
        None => Trainer::for_base(peft, adam, run.lr, schedule)?,
    };
    let model = peft.view(adapter.as_slice())?;
    let mut shuffle = TorchShuffle::new(rows.y.numel(), BATCH);
    let bar = page.progress(run.title, run.steps);
    for _ in 0..run.steps {
        let chosen = Tensor::f_from_slice(&shuffle.rows()?)?.f_to(rows.x.device())?;
        let batch = Batch::dense(rows.x.f_index_select(0, &chosen)?);
        let logits = model.forward(&batch, Pass::train())?;
        trainer.step(&cross_entropy(&logits, &rows.y.f_index_select(0, &chosen)?)?)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn logits(model: &dyn Model, rows: &Rows) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    Ok(model.forward(&Batch::dense(rows.x.shallow_clone()), Pass::eval())?)
}

fn accuracy(model: &dyn Model, rows: &Rows) -> Result<f64> {
    let right = logits(model, rows)?.f_argmax(1, false)?.f_eq_tensor(&rows.y)?;
    Ok(right.f_to_kind(Kind::Double)?.f_mean(None::<Kind>)?.f_double_value(&[])?)
}
