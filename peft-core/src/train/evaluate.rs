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
    let _guard = tch::no_grad_guard();
    let mut order: Vec<usize> = (0..task.rows()).collect();
    order.sort_by_key(|row| task.length(*row));
    let mut scores = Scores::default();
    for rows in order.chunks(batch.max(1)) {
        let (inputs, labels) = task.batch(rows, device)?;
        let output = model.forward(&inputs, Pass::eval())?;
        if let Some((loss, weight)) = task.loss(&output, &labels)? {
            scores.loss(loss.f_double_value(&[])?, weight);
            task.score(&output, &labels, &mut scores)?;
        }
    }
    scores.finish().ok_or(Error::Masked { rows: Vec::new() })
}
