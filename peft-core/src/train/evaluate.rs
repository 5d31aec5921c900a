//! How good a model is on data.

use crate::error::{Error, Result};
use crate::run::Model;
use crate::seam::Pass;
use crate::train::{Evaluation, Scores, Task};
use tch::Device;

/// Runs a model over all rows of a task, `batch` of them at a time, without dropout and gradients. Rows of like length go
/// together, which changes no score beyond rounding.
///
/// # Errors
/// What the model and the task say; [`Error::Masked`] where no label counts.
pub fn evaluate(model: &dyn Model, task: &dyn Task, batch: usize, device: Device) -> Result<Evaluation> {
    evaluate_while(model, task, batch, device, &mut |_| true)?.ok_or(Error::Masked { rows: Vec::new() })
}

/// As [`evaluate`], for as long as `go_on` says so, which hears of the rows that are done; `None` where it does not.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_while(
    model: &dyn Model,
    task: &dyn Task,
    batch: usize,
    device: Device,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Evaluation>> {
    let _guard = tch::no_grad_guard();
    let mut order: Vec<usize> = (0..task.rows()).collect();
    order.sort_by_key(|row| task.length(*row));
    let (mut scores, mut done) = (Scores::default(), 0usize);
    for rows in order.chunks(batch.max(1)) {
        if !go_on(done) {
            return Ok(None);
        }
        let (inputs, labels) = task.batch(rows, device)?;
        let output = model.forward(&inputs, Pass::eval())?;
        if let Some((loss, weight)) = task.loss(&output, &labels)? {
            scores.loss(loss.f_double_value(&[])?, weight);
            task.score(&output, &labels, &mut scores)?;
        }
        done = done.saturating_add(rows.len());
    }
    scores.finish().ok_or(Error::Masked { rows: Vec::new() }).map(Some)
}
