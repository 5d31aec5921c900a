//! What a run learns.

use crate::error::Result;
use crate::seam::Batch;
use crate::text::{Encoded, Sequences};
use crate::train::loss::{MASKED, cross_entropy, next_tokens};
use crate::train::scores::Scores;
use std::fmt::Debug;
use tch::{Device, Kind, Tensor};

/// What a [`Run`](super::Run) learns: rows of data, how some of them become a batch with labels, and what the loss of a
/// model's output is. The data of [`text`](crate::text) are tasks; a model of another kind has one of its own.
pub trait Task: Debug + Send {
    /// How many rows there are.
    fn rows(&self) -> usize;

    /// How long a row is, in tokens, say: rows of like length make a batch without much padding. 1 by default.
    fn length(&self, row: usize) -> usize {
        let _ = row;
        1
    }

    /// The rows as a batch, and their labels.
    ///
    /// # Errors
    /// A row that is not there.
    fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)>;

    /// The mean loss of an output, and its weight: how many labels it is the mean of. `None` where none counts.
    ///
    /// # Errors
    /// Labels that do not fit the output.
    fn loss(&self, output: &Tensor, labels: &Tensor) -> Result<Option<(Tensor, f64)>>;

    /// Adds to the scores of an evaluation what this output is worth beside its loss; nothing by default.
    ///
    /// # Errors
    /// As [`Task::loss`].
    fn score(&self, output: &Tensor, labels: &Tensor, scores: &mut Scores) -> Result<()> {
        let _ = (output, labels, scores);
        Ok(())
    }
}

/// A boxed task is one, too.
impl<T: Task + ?Sized> Task for Box<T> {
    fn rows(&self) -> usize {
        (**self).rows()
    }
    fn length(&self, row: usize) -> usize {
        (**self).length(row)
    }
    fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        (**self).batch(rows, device)
    }
    fn loss(&self, output: &Tensor, labels: &Tensor) -> Result<Option<(Tensor, f64)>> {
        (**self).loss(output, labels)
    }
    fn score(&self, output: &Tensor, labels: &Tensor, scores: &mut Scores) -> Result<()> {
        (**self).score(output, labels, scores)
    }
}

/// How many labels count. On a GPU this waits for it.
fn counted(labels: &Tensor) -> Result<f64> {
    Ok(labels.f_ne(MASKED)?.f_sum(Kind::Int64)?.f_int64_value(&[])? as f64)
}

/// Predicting the next token.
impl Task for Sequences {
    fn rows(&self) -> usize {
        self.len()
    }

    fn length(&self, row: usize) -> usize {
        self.ids.get(row).map_or(0, Vec::len)
    }

    fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        Sequences::batch(self, rows, device)
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> Result<Option<(Tensor, f64)>> {
        let (logits, targets) = next_tokens(output, labels)?;
        let weight = counted(&targets)?;
        if weight == 0.0 {
            return Ok(None);
        }
        Ok(Some((cross_entropy(&logits, &targets)?, weight)))
    }

    fn score(&self, output: &Tensor, labels: &Tensor, scores: &mut Scores) -> Result<()> {
        let (logits, targets) = next_tokens(output, labels)?;
        let right = logits.f_argmax(1, false)?.f_eq_tensor(&targets)?; // no class is −100
        scores.tokens(right.f_sum(Kind::Int64)?.f_int64_value(&[])?, counted(&targets)? as i64);
        Ok(())
    }
}

/// Saying the class.
impl Task for Encoded {
    fn rows(&self) -> usize {
        self.len()
    }

    fn length(&self, row: usize) -> usize {
        self.ids.get(row).map_or(0, Vec::len)
    }

    fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        Encoded::batch(self, rows, device)
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> Result<Option<(Tensor, f64)>> {
        let weight = counted(labels)?;
        if weight == 0.0 {
            return Ok(None);
        }
        Ok(Some((cross_entropy(output, labels)?, weight)))
    }

    fn score(&self, output: &Tensor, labels: &Tensor, scores: &mut Scores) -> Result<()> {
        let found = Vec::<i64>::try_from(&output.f_argmax(1, false)?.f_to(Device::Cpu)?)?;
        let expected = Vec::<i64>::try_from(&labels.f_to(Device::Cpu)?)?;
        scores.classes(expected.into_iter().zip(found).filter(|(expected, _)| *expected != MASKED));
        Ok(())
    }
}
