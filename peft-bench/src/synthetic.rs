//! A synthetic transfer task on which the methods separate.
//!
//! 100 tokens: 0 and 1 name the two pre-training tasks, 3 names task B, 4 to 11 are modifiers, 12 to 99 are plain. A
//! sequence is an instruction and nine tokens of 4 to 99. Each token has four latent scores; the class is the largest
//! sum of scores, shifted by a constant when there is a modifier. Pre-training learns two score tables and a shift of
//! 1; task B asks for their blend, which was never asked for, with fresh scores for ten tokens and a shift of 3.

use crate::cases::{ADAPTER, Case};
use crate::record;
use crate::task::{Task, TorchShuffle};
use anyhow::Result;
use peft_core::io::tensors;
use peft_core::models::TinyConfig;
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
use peft_core::{Batch, Params, Pass, Peft};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Rows to pre-train on, to fine-tune on, and to test on.
const PRETRAIN_ROWS: i64 = 16_000;
const PRETRAIN_TEST_ROWS: i64 = 2_000;
const TRAIN_ROWS: i64 = 2_000;
const TEST_ROWS: i64 = 4_000;
/// Steps of the whole pre-training.
pub const PRETRAIN_STEPS: u64 = 3_000;
const PRETRAIN_LR: f64 = 5e-3;
/// Steps of a whole fine-tuning.
pub const STEPS: u64 = 600;
const BATCH: usize = 64;

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
const INDEX: (Kind, Device) = (Kind::Int64, Device::Cpu);

/// Sequences `[rows, 10]` and classes `[rows]`.
#[derive(Debug)]
pub struct Rows {
    pub x: Tensor,
    pub y: Tensor,
}

impl Rows {
    fn to(&self, device: Device) -> Result<Self> {
        Ok(Self { x: self.x.f_to(device)?, y: self.y.f_to(device)? })
    }

    fn select(&self, rows: &[i64]) -> Result<(Batch, Tensor)> {
        let rows = Tensor::f_from_slice(rows)?.f_to(self.x.device())?;
        Ok((Batch::dense(self.x.f_index_select(0, &rows)?), self.y.f_index_select(0, &rows)?))
    }
}

/// All data of one seed.
#[derive(Debug)]
pub struct Draw {
    pub pretrain: Rows,
    pub pretrain_test: Rows,
    pub train: Rows,
    pub test: Rows,
}

/// `(argmax of scores + k · [any modifier]) mod 4`.
fn classes(x: &Tensor, scores: &Tensor, k: i64) -> Result<Tensor> {
    let modifier = x.f_ge(4)?.f_logical_and(&x.f_lt(12)?)?.f_any_dim(1, false)?.f_to_kind(Kind::Int64)?;
    Ok(scores.f_argmax(1, false)?.f_add(&modifier.f_mul_scalar(k)?)?.f_remainder(4)?)
}

/// Sum of the scores `[100, 4]` of the nine tokens after the instruction.
fn scores(table: &Tensor, x: &Tensor) -> Result<Tensor> {
    let tokens = x.f_slice(1, 1, None, 1)?;
    let rows = Tensor::f_embedding(table, &tokens, -1, false, false)?;
    Ok(rows.f_sum_dim_intlist(1, false, None::<Kind>)?)
}

/// Draws the data of a seed, in the order that the task was defined in.
pub fn draw(seed: i64) -> Result<Draw> {
    tch::manual_seed(seed);
    let tables = Tensor::f_randn([2, 100, 4], FLOAT)?;
    let (s0, s1) = (tables.f_get(0)?, tables.f_get(1)?);
    let fresh = Tensor::f_randn([100, 4], FLOAT)?;
    let drifted = Tensor::f_randperm(96, INDEX)?.f_narrow(0, 0, 10)?.f_add_scalar(4)?;
    let blend = s0.f_add(&s1)?.f_mul_scalar(0.5f64.sqrt())?;
    let blend = blend.f_index_copy(0, &drifted, &fresh.f_index_select(0, &drifted)?)?;

    let sequences = |n: i64| Tensor::f_randint_low(4, 100, [n, 10], INDEX);
    let two_tasks = |n: i64| -> Result<Rows> {
        let x = sequences(n)?;
        let task = Tensor::f_randint(2, [n], INDEX)?;
        x.f_select(1, 0)?.f_copy_(&task)?;
        let first = task.f_unsqueeze(1)?.f_eq(0)?;
        let sums = scores(&s0, &x)?.f_where_self(&first, &scores(&s1, &x)?)?;
        Ok(Rows { y: classes(&x, &sums, 1)?, x })
    };
    let task_b = |n: i64| -> Result<Rows> {
        let x = sequences(n)?;
        let _ = x.f_select(1, 0)?.f_fill_(3)?;
        Ok(Rows { y: classes(&x, &scores(&blend, &x)?, 3)?, x })
    };
    Ok(Draw {
        pretrain: two_tasks(PRETRAIN_ROWS)?,
        pretrain_test: two_tasks(PRETRAIN_TEST_ROWS)?,
        train: task_b(TRAIN_ROWS)?,
        test: task_b(TEST_ROWS)?,
    })
}

/// Pre-trains the base of a seed for the first `steps` of its [`PRETRAIN_STEPS`]; `seen` gets every loss.
pub fn pretrain(
    seed: i64,
    device: Device,
    steps: u64,
    mut seen: impl FnMut(u64, f64) -> Result<()>,
) -> Result<(Peft, record::Base)> {
    let data = draw(seed)?;
    let rows = data.pretrain.to(device)?;
    tch::manual_seed(10_000 + seed);
    let config = TinyConfig::default();
    let peft = Peft::new(config.init(device)?, config)?;
    peft.base().set_trainable(|_| true)?;
    let schedule = Schedule::Cosine { warmup: 0, total: PRETRAIN_STEPS };
    let mut trainer = Trainer::for_base(&peft, AdamConfig::adam(), PRETRAIN_LR, schedule)?;
    let mut shuffle = TorchShuffle::new(PRETRAIN_ROWS as usize, BATCH);
    let model = peft.view(&[])?;
    for step in 0..steps {
        let (batch, y) = rows.select(&shuffle.rows()?)?;
        let report = trainer.step(&cross_entropy(&model.forward(&batch, Pass::train())?, &y)?)?;
        seen(step, report.loss)?;
    }
    peft.base().freeze()?;
    let accuracy = |rows: &Rows| -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let rows = rows.to(device)?;
        let logits = model.forward(&Batch::dense(rows.x), Pass::eval())?;
        let right = logits.f_argmax(1, false)?.f_eq_tensor(&rows.y)?.f_to_kind(Kind::Double)?;
        Ok(f64::try_from(right.f_mean(None::<Kind>)?)?)
    };
    let (own, unadapted) = (accuracy(&data.pretrain_test)?, accuracy(&data.test)?);
    let parameters = peft.report(&[])?.all;
    Ok((peft, record::Base { parameters, own, unadapted }))
}

/// Fine-tuning on task B.
#[derive(Debug)]
pub struct Synthetic {
    peft: Peft,
    train: Rows,
    test: Rows,
    shuffle: TorchShuffle,
}

impl Synthetic {
    /// Over a base that [`pretrain`] made, or over a fresh model; the case is drawn from its own seed, so that every
    /// method starts alike.
    pub fn open(
        base: Option<&Path>,
        seed: i64,
        device: Device,
        case: &Case,
        batch: Option<usize>,
    ) -> Result<Self> {
        let data = draw(seed)?;
        tch::manual_seed(20_000 + seed);
        let config = TinyConfig::default();
        let base = match base {
            Some(file) => Params::from_tensors(file.display().to_string(), device, tensors::read(file)?)?,
            None => config.init(device)?,
        };
        let mut peft = Peft::new(base, config)?;
        peft.add(ADAPTER, (case.tiny)())?;
        let shuffle = TorchShuffle::new(TRAIN_ROWS as usize, batch.unwrap_or(BATCH));
        Ok(Self { peft, train: data.train.to(device)?, test: data.test.to(device)?, shuffle })
    }
}

impl Task for Synthetic {
    fn peft(&mut self) -> &mut Peft {
        &mut self.peft
    }

    fn steps(&self) -> u64 {
        STEPS
    }

    fn next(&mut self) -> Result<(Batch, Tensor, u64)> {
        let (batch, y) = self.train.select(&self.shuffle.rows()?)?;
        let tokens = batch.ids()?.numel() as u64;
        Ok((batch, y, tokens))
    }

    fn test(&self) -> Result<Vec<(Batch, Tensor)>> {
        Ok(vec![(Batch::dense(self.test.x.shallow_clone()), self.test.y.shallow_clone())])
    }

    fn adam(&self) -> AdamConfig {
        AdamConfig::adam()
    }

    fn schedule(&self, total: u64) -> Schedule {
        Schedule::Cosine { warmup: 0, total }
    }

    fn lr(&self, case: &Case) -> f64 {
        case.lr.0
    }
}
