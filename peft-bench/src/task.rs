//! A task: a model, a stream of batches, a test.

use anyhow::Result;
use peft_core::train::{AdamConfig, Schedule};
use peft_core::{Batch, Peft};
use tch::{Kind, Tensor};

/// What a run is over.
pub trait Task {
    /// The base with the case's adapter.
    fn peft(&mut self) -> &mut Peft;
    /// Steps of a whole run.
    fn steps(&self) -> u64;
    /// The next batch, its classes, and how many of its tokens are real.
    fn next(&mut self) -> Result<(Batch, Tensor, u64)>;
    /// The test set, in batches.
    fn test(&self) -> Result<Vec<(Batch, Tensor)>>;
    /// The optimizer's constants.
    fn adam(&self) -> AdamConfig;
    /// The learning rate's course over `total` steps.
    fn schedule(&self, total: u64) -> Schedule;
    /// Which of a case's learning rates is this task's.
    fn lr(&self, case: &crate::cases::Case) -> f64;
}

/// Batches of row numbers in random order, pass after pass, drawn from libtorch's generator as the recorded runs in Python
/// drew them; a last, smaller batch of a pass is left out. What has no such record has
/// [`peft_core::train::Shuffle`].
#[derive(Debug)]
pub struct TorchShuffle {
    order: Vec<i64>,
    at: usize,
    rows: usize,
    batch: usize,
}

impl TorchShuffle {
    pub fn new(rows: usize, batch: usize) -> Self {
        Self { order: Vec::new(), at: 0, rows, batch }
    }

    /// The next batch of row numbers.
    pub fn rows(&mut self) -> Result<Vec<i64>> {
        let left = self.order.len() - self.at;
        if left == 0 || left < self.batch {
            let order = Tensor::f_randperm(self.rows as i64, (Kind::Int64, tch::Device::Cpu))?;
            self.order = Vec::<i64>::try_from(order)?;
            self.at = 0;
        }
        let end = (self.at + self.batch).min(self.order.len());
        let rows = self.order[self.at..end].to_vec();
        self.at = end;
        Ok(rows)
    }
}
