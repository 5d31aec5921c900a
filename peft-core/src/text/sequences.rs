//! Token ids that are ready for a causal model to learn, and batches of them.

use crate::error::Result;
use crate::seam::Batch;
use crate::text::encoded::pick;
use tch::{Device, Tensor};

/// The label of a token that is not learned.
const IGNORED: i64 = -100;

/// Texts as token ids, for a causal model to learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    /// Token ids of each row.
    pub ids: Vec<Vec<i64>>,
    /// Which tokens of each row are learned: not those that are given, a prompt or what a user says.
    pub learned: Vec<Vec<bool>>,
    /// The texts that each row is made of, one after the other: one.
    pub documents: Vec<Vec<Document>>,
    /// How many texts were cut to fit the model.
    pub truncated: usize,
    /// How many of those are left out, as the cut leaves nothing to learn of them.
    pub dropped: usize,
    pad: i64,
}

/// A text among the tokens of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// Which of the examples it is, from 0 on.
    pub example: usize,
    /// Number of its tokens.
    pub tokens: usize,
    /// Whether it was cut to fit the model.
    pub cut: bool,
}

impl Sequences {
    pub(super) fn new(pad: i64) -> Self {
        Self { ids: Vec::new(), learned: Vec::new(), documents: Vec::new(), truncated: 0, dropped: 0, pad }
    }

    /// Adds a row: token ids, and which of them are learned.
    pub(super) fn push(&mut self, documents: Vec<Document>, ids: Vec<i64>, learned: Vec<bool>) {
        self.ids.push(ids);
        self.learned.push(learned);
        self.documents.push(documents);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The given rows as a batch, padded on the right to the longest of them, and their labels `[rows, length]`: the
    /// ids, −100 for padding and for what is given.
    pub fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        let ids = pick(&self.ids, rows)?;
        let batch = Batch::padded(&ids, self.pad, device)?;
        let labels = ids.iter().zip(pick(&self.learned, rows)?).map(|(ids, learned)| {
            ids.iter().zip(learned).map(|(id, learned)| if *learned { *id } else { IGNORED }).collect()
        });
        let labels = Batch::padded(&labels.collect::<Vec<Vec<i64>>>(), IGNORED, device)?;
        Ok((batch, labels.ids()?.shallow_clone()))
    }
}
