//! Token ids that are ready for a model, and batches of them.

use crate::error::{Error, Result};
use crate::seam::Batch;
use tch::kind::Element;
use tch::{Device, Tensor};

/// Texts as token ids, for a classifier to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    pub ids: Vec<Vec<i64>>,
    /// Which text of a pair each token is of, 0 or 1; `None` where the tokenizer has no such types for its model.
    pub token_types: Option<Vec<Vec<i64>>>,
    /// How many texts were cut to fit the model.
    pub truncated: usize,
    pub(super) pad: i64,
}

/// Rows as token ids and their labels: class numbers, or with `f32` what is learned by regression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded<L = i64> {
    pub ids: Vec<Vec<i64>>,
    /// As [`Inputs::token_types`].
    pub token_types: Option<Vec<Vec<i64>>>,
    pub labels: Vec<L>,
    /// How many texts were cut to fit the model.
    pub truncated: usize,
    pub(super) pad: i64,
}

impl Inputs {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The given rows as a batch, padded on the right to the longest of them.
    pub fn batch(&self, rows: &[usize], device: Device) -> Result<Batch> {
        batch(&self.ids, self.token_types.as_deref(), self.pad, rows, device)
    }
}

impl<L: Element + Copy> Encoded<L> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The given rows as a batch, padded on the right to the longest of them, and their labels `[rows]`: int64
    /// for classes, float32 for numbers.
    pub fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        let labels = pick(&self.labels, rows)?.into_iter().copied().collect::<Vec<L>>();
        let batch = batch(&self.ids, self.token_types.as_deref(), self.pad, rows, device)?;
        Ok((batch, Tensor::f_from_slice(&labels)?.f_to(device)?))
    }
}

fn batch(
    ids: &[Vec<i64>],
    token_types: Option<&[Vec<i64>]>,
    pad: i64,
    rows: &[usize],
    device: Device,
) -> Result<Batch> {
    let batch = Batch::padded(&pick(ids, rows)?, pad, device)?;
    match token_types.map(|types| pick(types, rows)).transpose()? {
        // Type 0 throughout is what a model takes by itself.
        Some(types) if types.iter().any(|row| row.iter().any(|t| *t != 0)) => batch.typed(&types),
        _ => Ok(batch),
    }
}

pub(super) fn pick<'a, T>(all: &'a [T], rows: &[usize]) -> Result<Vec<&'a T>> {
    let missing = || Error::Input(format!("a row beyond the {} there are", all.len()));
    rows.iter().map(|r| all.get(*r).ok_or_else(missing)).collect()
}
