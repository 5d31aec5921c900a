//! Fine-tuning a Hub model on labelled text.

use crate::cases::{ADAPTER, Case};
use crate::task::Task;
use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::text::{Dataset, Encoded, Limits, TextEncoder};
use peft_core::train::{AdamConfig, Schedule, Shuffle};
use peft_core::{Batch, Peft, TaskType};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

const BATCH: usize = 32;
/// Rows at a time when testing.
const TEST_BATCH: usize = 64;

/// A classifier over text.
#[derive(Debug)]
pub struct Text {
    peft: Peft,
    train: Encoded,
    test: Encoded,
    shuffle: Shuffle,
    /// The epoch that is next, and the rows that are left of the one before.
    epoch: u64,
    left: Vec<usize>,
    batch: usize,
    epochs: u64,
    device: Device,
}

/// Where the parts of the task lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    pub model: PathBuf,
    pub train: PathBuf,
    pub test: PathBuf,
    pub epochs: u64,
    /// Replace the head that the model's file has.
    pub new_head: bool,
}

impl Source {
    /// Reads and encodes both files, without the model's weights: what is wrong with the data is wrong for every run.
    ///
    /// # Errors
    /// Everything that [`Text::open`] would say of the text, the tokenizer and the model's configuration.
    pub fn check(&self) -> Result<()> {
        let (train, test) = (Dataset::read(&self.train)?, Dataset::read(&self.test)?);
        let labels = train.labels();
        classifies(&self.model)?;
        let dims = hub::architecture(&self.model, Head::Classes(labels.len() as i64))?.dims();
        let encoder = TextEncoder::open(&self.model, Limits::of(&dims, &self.model)?)?;
        encoder.encode(&train, &labels)?;
        encoder.encode(&test, &labels)?;
        Ok(())
    }
}

/// The cases are for encoders with a head for classes.
fn classifies(model: &Path) -> Result<()> {
    let family = hub::family(model)?;
    ensure!(
        family.task == TaskType::SeqCls,
        "{}: model_type: is `{}`, for {}; expected `bert` or `roberta`, for classes of texts",
        model.join(hub::CONFIG).display(),
        family.model_type,
        family.task
    );
    Ok(())
}

impl Text {
    /// Reads everything; `note` is told what the user should know.
    pub fn open(
        source: &Source,
        seed: i64,
        device: Device,
        case: &Case,
        batch: Option<usize>,
        mut note: impl FnMut(String) -> Result<()>,
    ) -> Result<Self> {
        let (train, test) = (Dataset::read(&source.train)?, Dataset::read(&source.test)?);
        for warning in train.warnings.iter().chain(&test.warnings) {
            note(warning.to_string())?;
        }
        let labels = train.labels();
        let classes = labels.len() as i64;
        let head = if source.new_head { Head::Fresh(classes) } else { Head::Classes(classes) };
        classifies(&source.model)?;
        tch::manual_seed(seed);
        let opened = hub::open(&source.model, device, head).context("opening the model")?;
        for warning in &opened.warnings {
            note(warning.to_string())?;
        }
        if !opened.fresh.is_empty() {
            note(format!("fresh head for {classes} classes: {}", opened.fresh.join(", ")))?;
        }
        if !opened.unused.is_empty() {
            note(format!("not used of the model's file: {}", opened.unused.join(", ")))?;
        }
        let mut peft = opened.peft;
        let limits = Limits::of(&peft.outline().dims, &source.model)?;
        let encoder = TextEncoder::open(&source.model, limits)?;
        let (train, test) = (encoder.encode(&train, &labels)?, encoder.encode(&test, &labels)?);
        for (what, set) in [("training", &train), ("test", &test)] {
            if set.truncated > 0 {
                let (cut, most) = (set.truncated, limits.positions.unwrap_or_default());
                note(format!(
                    "{cut} of {} {what} texts are longer than the model's {most} positions: cut",
                    set.len()
                ))?;
            }
        }
        peft.add(ADAPTER, (case.bert)())?;
        let shuffle = Shuffle::new(train.len(), seed.cast_unsigned());
        let (batch, epochs) = (batch.unwrap_or(BATCH), source.epochs);
        Ok(Self { peft, train, test, shuffle, epoch: 0, left: Vec::new(), batch, epochs, device })
    }
}

impl Task for Text {
    fn peft(&mut self) -> &mut Peft {
        &mut self.peft
    }

    fn steps(&self) -> u64 {
        self.train.len().div_ceil(self.batch) as u64 * self.epochs
    }

    fn next(&mut self) -> Result<(Batch, Tensor, u64)> {
        if self.left.is_empty() {
            self.left = self.shuffle.epoch(self.epoch);
            self.epoch += 1;
        }
        let rows: Vec<usize> = self.left.drain(..self.batch.min(self.left.len())).collect();
        let (batch, y) = self.train.batch(&rows, self.device)?;
        let tokens = rows.iter().map(|r| self.train.ids[*r].len() as u64).sum();
        Ok((batch, y, tokens))
    }

    fn test(&self) -> Result<Vec<(Batch, Tensor)>> {
        let rows: Vec<usize> = (0..self.test.len()).collect();
        rows.chunks(TEST_BATCH).map(|rows| Ok(self.test.batch(rows, self.device)?)).collect()
    }

    fn adam(&self) -> AdamConfig {
        AdamConfig::default()
    }

    fn schedule(&self, total: u64) -> Schedule {
        Schedule::Linear { warmup: 0, total }
    }

    fn lr(&self, case: &Case) -> f64 {
        case.lr.1
    }
}
