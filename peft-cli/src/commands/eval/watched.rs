//! A task that shows how far it is.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use peft_core::tch::{Device, Tensor};
use peft_core::train::{Scores, Task};
use peft_core::{Batch, Result};

/// A task with a bar on stderr, which moves with its batches.
#[derive(Debug)]
pub(super) struct Watched {
    task: Box<dyn Task>,
    bar: ProgressBar,
}

impl Watched {
    pub(super) fn new(task: Box<dyn Task>, name: String, quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rows {per_sec} {eta} {msg}");
        let bar = ProgressBar::with_draw_target(Some(task.rows() as u64), target);
        Self {
            task,
            bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(name),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Task for Watched {
    fn rows(&self) -> usize {
        self.task.rows()
    }

    fn length(&self, row: usize) -> usize {
        self.task.length(row)
    }

    fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        let batch = self.task.batch(rows, device)?;
        self.bar.inc(rows.len() as u64);
        Ok(batch)
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> Result<Option<(Tensor, f64)>> {
        self.task.loss(output, labels)
    }

    fn score(&self, output: &Tensor, labels: &Tensor, scores: &mut Scores) -> Result<()> {
        self.task.score(output, labels, scores)
    }
}
