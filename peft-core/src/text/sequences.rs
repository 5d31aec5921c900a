//! Token ids that are ready for a causal model to learn, and batches of them.

use crate::error::{Error, Result};
use crate::seam::{Batch, Documents};
use crate::text::encoded::pick;
use std::cmp::Reverse;
use std::collections::BTreeMap;
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
    /// The texts that each row is made of, one after the other: one, unless rows are [packed](Sequences::packed).
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
    /// ids, −100 for padding, for what is given and where a packed text begins.
    pub fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        let ids = pick(&self.ids, rows)?;
        let batch = Batch::padded(&ids, self.pad, device)?;
        let labels = ids.iter().zip(pick(&self.learned, rows)?).map(|(ids, learned)| {
            ids.iter().zip(learned).map(|(id, learned)| if *learned { *id } else { IGNORED }).collect()
        });
        let labels = Batch::padded(&labels.collect::<Vec<Vec<i64>>>(), IGNORED, device)?;
        let labels = labels.ids()?.shallow_clone();
        let documents = pick(&self.documents, rows)?;
        if documents.iter().all(|row| row.len() < 2) {
            return Ok((batch, labels));
        }
        let tokens = |document: &Document| i64::try_from(document.tokens).unwrap_or(i64::MAX);
        let documents = documents.iter().map(|row| row.iter().map(tokens).collect()).collect();
        let batch = batch.packed(Documents::new(documents)?)?;
        let labels = batch.predicted(labels)?;
        Ok((batch, labels))
    }

    /// The same texts in fewer rows of at most `length` tokens, several whole ones in each. A causal model learns each as if
    /// it were alone, to rounding: see [`Documents`].
    ///
    /// Texts are placed from the longest to the shortest, each into the fullest row that has room for it (best fit
    /// decreasing). Nothing is drawn: the same texts give the same rows, which come in the order of their first text.
    ///
    /// # Errors
    /// A text that is longer than a row.
    pub fn packed(&self, length: usize) -> Result<Self> {
        let mut order: Vec<(usize, usize)> = self.ids.iter().map(Vec::len).enumerate().collect();
        order.sort_by_key(|(_, tokens)| Reverse(*tokens));
        // The rows by how much room they have left.
        let mut open: BTreeMap<usize, Vec<Vec<usize>>> = BTreeMap::new();
        for (text, tokens) in order {
            if tokens > length {
                let number = text.saturating_add(1);
                let message =
                    format!("row {number} has {tokens} tokens, and does not fit a packed row of {length}");
                return Err(Error::Input(message));
            }
            let room = open.range(tokens..).next().map_or(length, |(room, _)| *room);
            let mut rows = open.remove(&room).unwrap_or_default();
            let mut row = rows.pop().unwrap_or_default();
            if !rows.is_empty() {
                open.insert(room, rows);
            }
            row.push(text);
            open.entry(room.saturating_sub(tokens)).or_default().push(row);
        }
        let mut rows: Vec<Vec<usize>> = open.into_values().flatten().collect();
        rows.iter_mut().for_each(|row| row.sort_unstable());
        rows.sort_unstable();
        let mut all = Self { truncated: self.truncated, dropped: self.dropped, ..Self::new(self.pad) };
        for row in &rows {
            all.push(joined(&self.documents, row)?, joined(&self.ids, row)?, joined(&self.learned, row)?);
        }
        Ok(all)
    }
}

/// What the rows have, one after the other.
fn joined<T: Copy>(all: &[Vec<T>], rows: &[usize]) -> Result<Vec<T>> {
    Ok(pick(all, rows)?.into_iter().flatten().copied().collect())
}
