//! A training as one thing: what is trained, how, on which data, and where it is.

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::run::Model;
use crate::seam::Pass;
use crate::train::cursor::Cursor;
use crate::train::streams::Streams;
use crate::train::{
    AdamConfig, Evaluation, Optim, Order, Schedule, StepReport, Task, Trainer, evaluate, evaluate_while,
};
use std::num::NonZeroUsize;
use tch::Device;

/// How a [`Run`] trains.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The optimizer.
    pub optim: Optim,
    /// Learning rate at the schedule's peak.
    pub lr: f64,
    pub schedule: Schedule,
    /// The gradients are scaled down to this norm where theirs is greater; `None` for never.
    pub clip: Option<f64>,
    /// Rows a step.
    pub batch: usize,
    /// Rows that are computed at once: a batch of more is computed in parts, whose gradients add up to the batch's. `None` for
    /// the whole batch at once.
    pub micro_batch: Option<usize>,
    /// In which order rows are taken.
    pub order: Order,
    /// So many layers at a time are computed again for the gradients, instead of keeping what is within them: less memory,
    /// more time, the same gradients. `None` for none.
    pub recompute: Option<NonZeroUsize>,
    /// Seed of the order and of dropout.
    pub seed: u64,
}

impl Default for Recipe {
    /// AdamW at a constant 10⁻³, 8 rows a step in random order, gradients up to a norm of 1.
    fn default() -> Self {
        Self {
            optim: AdamConfig::default().into(),
            lr: 1e-3,
            schedule: Schedule::Constant,
            clip: Some(1.0),
            batch: 8,
            micro_batch: None,
            order: Order::default(),
            recompute: None,
            seed: 0,
        }
    }
}

/// A training of some adapters: their optimizer, the data and where it is in them, and the random numbers that it draws. Its
/// state is saved at any step, and a run that is made alike and loads it goes on as this one would have, to the bit on the
/// CPU.
///
/// ```
/// # use peft_core::{Batch, Peft, Result, models::TinyConfig, tch::{Device, Kind, Tensor}};
/// use peft_core::methods::LoraConfig;
/// use peft_core::train::{Recipe, Run, Task, cross_entropy};
///
/// /// Eight texts of five tokens, and their classes.
/// #[derive(Debug)]
/// struct Texts;
///
/// impl Task for Texts {
///     fn rows(&self) -> usize {
///         8
///     }
///     fn batch(&self, rows: &[usize], _: Device) -> Result<(Batch, Tensor)> {
///         let ids: Vec<i64> = rows.iter().flat_map(|row| (0..5).map(move |i| (row * i) as i64)).collect();
///         let classes: Vec<i64> = rows.iter().map(|row| (row % 4) as i64).collect();
///         let ids = Tensor::f_from_slice(&ids)?.f_view([-1, 5])?;
///         Ok((Batch::dense(ids), Tensor::f_from_slice(&classes)?))
///     }
///     fn loss(&self, logits: &Tensor, classes: &Tensor) -> Result<Option<(Tensor, f64)>> {
///         Ok(Some((cross_entropy(logits, classes)?, classes.size1()? as f64)))
///     }
/// }
///
/// # fn main() -> Result<()> {
/// # let config = TinyConfig::default();
/// # let mut peft = Peft::new(config.init(Device::Cpu)?, config)?;
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("checkpoint");
/// peft.add("mine", LoraConfig::new(8).targets(["ff.0"]))?;
/// let recipe = Recipe { batch: 4, ..Recipe::default() };
/// let mut run = Run::new(&peft, &["mine"], &recipe, Texts)?;
/// while run.epoch() < 3.0 {
///     println!("{}", run.step()?.loss);
/// }
/// run.save(&dir, &[])?;
///
/// let mut again = Run::new(&peft, &["mine"], &recipe, Texts)?; // in another process, say
/// again.load(&dir)?;
/// assert_eq!(again.steps(), 6);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Run {
    pub(super) names: Vec<String>,
    pub(super) trainer: Trainer,
    pub(super) cursor: Cursor,
    pub(super) streams: Streams,
    pub(super) batch: usize,
    pub(super) micro_batch: usize,
    pub(super) seed: u64,
    recompute: Option<NonZeroUsize>,
    view: Box<dyn Model>,
    task: Box<dyn Task>,
    device: Device,
}

/// What one step of a [`Run`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The number of the step, from 1.
    pub number: u64,
    /// Passes over the data so far: 1.5 is the middle of the second one.
    pub epoch: f64,
    /// The loss before the update, with what the adapters' methods add to it.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Norm of all gradients together, before clipping; only where clipping is on.
    pub grad_norm: Option<f64>,
    /// The rows of the batch, from 0.
    pub rows: Vec<usize>,
    /// How long these rows are together, padding not counted: tokens.
    pub tokens: usize,
    /// Labels that counted: tokens, or rows.
    pub learned: f64,
    /// Parts of the batch that were passed over, since no label of them counts.
    pub skipped: usize,
    /// Where memory ran out in this step, the rows that are computed at once from now on.
    pub reduced: Option<usize>,
}

impl Run {
    /// A run of the named adapters, the first one innermost, at its beginning.
    ///
    /// # Errors
    /// As [`Trainer::new`]; a task without rows, a batch of none.
    pub fn new(peft: &Peft, adapters: &[&str], recipe: &Recipe, task: impl Task + 'static) -> Result<Self> {
        let Recipe { optim, lr, schedule, clip, batch, micro_batch, order, recompute, seed } = recipe.clone();
        let trainer = Trainer::new(peft, adapters, optim, lr, schedule)?;
        let device = peft.base().device();
        let lengths = (0..task.rows()).map(|row| task.length(row)).collect();
        let micro_batch = micro_batch.unwrap_or(batch);
        if micro_batch == 0 {
            return Err(Error::config(
                "run",
                "micro_batch",
                "is 0, expected a positive number of rows at once",
            ));
        }
        Ok(Self {
            names: adapters.iter().map(|name| (*name).to_owned()).collect(),
            trainer: clip.into_iter().fold(trainer, Trainer::clip),
            cursor: Cursor::new(lengths, order, batch, seed)?,
            streams: Streams::seeded(seed, device)?,
            batch,
            micro_batch: micro_batch.min(batch),
            seed,
            recompute,
            view: peft.view(adapters)?,
            task: Box::new(task),
            device,
        })
    }

    /// How many steps were taken, those before it was saved and loaded included.
    pub fn steps(&self) -> u64 {
        self.trainer.steps()
    }

    /// How many steps an epoch takes.
    pub fn steps_per_epoch(&self) -> u64 {
        self.cursor.steps()
    }

    /// Passes over the data so far: 1.5 is the middle of the second one.
    pub fn epoch(&self) -> f64 {
        self.cursor.epoch as f64 + self.cursor.taken as f64 / self.cursor.steps().max(1) as f64
    }

    /// Rows that are computed at once.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch
    }

    /// The adapted model.
    pub fn model(&self) -> &dyn Model {
        self.view.as_ref()
    }

    /// The rows of the step to come.
    pub fn rows_ahead(&self) -> &[usize] {
        self.cursor.rows_ahead()
    }

    /// One update from the next batch. Where memory runs out before anything is changed, the batch is computed anew in parts
    /// of half as many rows, and so are those to come; [`Step::reduced`] says so.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when the loss or the gradients' norm is not a number, [`Error::Masked`] when no label of the
    /// batch counts, [`Error::Memory`] when it does not suffice for one row; all with nothing updated, and the run where it
    /// was.
    pub fn step(&mut self) -> Result<Step> {
        let rows = self.cursor.rows_ahead().to_vec();
        let before = self.micro_batch;
        let report = loop {
            match self.try_step(&rows) {
                Err(Error::Memory(_)) if self.micro_batch > 1 => {
                    self.micro_batch = self.micro_batch.div_ceil(2)
                }
                other => break other.map_err(|e| of_rows(e, &rows))?,
            }
        };
        self.cursor.advance()?;
        let StepReport { loss, lr, grad_norm, weight, skipped } = report;
        Ok(Step {
            number: self.steps(),
            epoch: self.epoch(),
            loss,
            lr,
            grad_norm,
            tokens: rows.iter().map(|row| self.task.length(*row)).sum(),
            rows,
            learned: weight,
            skipped,
            reduced: Some(self.micro_batch).filter(|now| *now != before),
        })
    }

    fn try_step(&mut self, rows: &[usize]) -> Result<StepReport> {
        let Self { trainer, view, task, streams, device, micro_batch, recompute, .. } = self;
        let pass = Pass { recompute: *recompute, ..Pass::train() };
        streams.within(|| {
            let parts = rows.chunks(*micro_batch).map(|rows| {
                let (batch, labels) = task.batch(rows, *device)?;
                let output = view.forward(&batch, pass)?;
                // A part without labels has weight 0, and is passed over.
                Ok::<_, Error>(task.loss(&output, &labels)?.unwrap_or((output, 0.0)))
            });
            let sum = trainer.accumulate(parts)?;
            trainer.update(sum)
        })
    }

    /// How good the model is on other data, `batch` rows at a time. Nothing of the run changes.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn evaluate(&self, task: &dyn Task, batch: usize) -> Result<Evaluation> {
        evaluate(self.view.as_ref(), task, batch, self.device)
    }

    /// As [`Run::evaluate`], for as long as `go_on` says so; see [`evaluate_while`].
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn evaluate_while(
        &self,
        task: &dyn Task,
        batch: usize,
        go_on: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        evaluate_while(self.view.as_ref(), task, batch, self.device, go_on)
    }
}

/// Says whose numbers are wrong.
fn of_rows(error: Error, of: &[usize]) -> Error {
    match error {
        Error::NonFinite { what, value, step, .. } => {
            Error::NonFinite { what, value, step, rows: of.to_vec() }
        }
        Error::Masked { .. } => Error::Masked { rows: of.to_vec() },
        other => other,
    }
}
