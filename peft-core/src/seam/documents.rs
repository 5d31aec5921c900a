//! Several texts in one row of a batch, each as if it were alone.

use crate::error::{Error, Result};
use crate::seam::attention::lowest;
use tch::{Device, Kind, Tensor};

/// The texts that the rows of a packed batch are made of, one after the other: how many tokens each has.
///
/// In a causal model positions begin again at each of them, and no token sees one of another text. So it computes for each
/// what it computes for the text alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    rows: Vec<Vec<i64>>,
}

impl Documents {
    /// Rows of texts of so many tokens each; behind the last one of a row there may be padding.
    ///
    /// # Errors
    /// A row without a text, a text without a token.
    pub fn new(rows: Vec<Vec<i64>>) -> Result<Self> {
        match rows.iter().position(|row| row.is_empty() || row.iter().any(|tokens| *tokens < 1)) {
            Some(at) => {
                let number = at.saturating_add(1);
                Err(Error::Input(format!("row {number} of {}: a text has a token at least", rows.len())))
            }
            None => Ok(Self { rows }),
        }
    }

    /// Checks that there are texts for every row of ids `[rows, length]`, and that they fit it.
    pub(super) fn check(&self, (rows, length): (i64, i64)) -> Result<()> {
        let found = i64::try_from(self.rows.len()).unwrap_or(i64::MAX);
        let most = self.rows.iter().map(|row| total(row)).max().unwrap_or_default();
        if found != rows || most > length {
            let message = format!(
                "{found} rows of texts of {most} tokens at most, for ids of shape [{rows}, {length}]"
            );
            return Err(Error::Input(message));
        }
        Ok(())
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> i64 {
        self.rows.iter().flatten().copied().max().unwrap_or_default()
    }

    /// Position of each token in its text, `[rows, length]`; 0 for padding.
    pub fn positions(&self, length: i64, device: Device) -> Result<Tensor> {
        self.filled(length, device, |_, tokens| (0..tokens).collect())
    }

    /// What attention adds to its scores, `[rows, 1, length, length]`: 0 within a text, and the dtype's lowest number between
    /// two of them.
    pub fn additive_mask(&self, length: i64, (kind, device): (Kind, Device)) -> Result<Tensor> {
        let numbered = |number: i64, tokens: i64| vec![number; usize::try_from(tokens).unwrap_or_default()];
        let numbers = self.filled(length, device, numbered)?;
        let others = numbers.f_unsqueeze(-1)?.f_ne_tensor(&numbers.f_unsqueeze(1)?)?.f_unsqueeze(1)?;
        let zeros = Tensor::f_zeros(others.size(), (kind, device))?;
        Ok(zeros.f_masked_fill(&others, lowest(kind))?)
    }

    /// `[rows, length]` of what `text` says of a text's number, from 1 on, and its tokens; 0 for padding.
    fn filled(&self, length: i64, device: Device, text: impl Fn(i64, i64) -> Vec<i64>) -> Result<Tensor> {
        let width = usize::try_from(length).unwrap_or_default();
        let mut all = Vec::new();
        for row in &self.rows {
            let end = all.len().saturating_add(width);
            all.extend((1..).zip(row).flat_map(|(number, tokens)| text(number, *tokens)));
            all.resize(end, 0);
        }
        let rows = i64::try_from(self.rows.len()).unwrap_or(i64::MAX);
        Ok(Tensor::f_from_slice(&all)?.f_view([rows, length])?.f_to(device)?)
    }
}

fn total(row: &[i64]) -> i64 {
    row.iter().fold(0, |sum: i64, tokens| sum.saturating_add(*tokens))
}
