//! What a model can read, for its tokenizer.

use crate::error::Result;
use crate::io::TokenIds;
use crate::seam::Dims;
use std::path::Path;

/// What a model can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Token ids are below it.
    pub vocab: i64,
    /// Tokens of a text, special ones included; `None` for any number.
    pub positions: Option<i64>,
    /// The id that fills rows up.
    pub pad: i64,
}

impl Limits {
    /// Those of a model, whose directory says which id pads where the model does not say it itself.
    ///
    /// # Errors
    /// A model that states no vocabulary, files of the directory that are malformed.
    pub fn of(dims: &Dims, dir: impl AsRef<Path>) -> Result<Self> {
        let sizes = dims.sizes()?;
        let pad = match sizes.pad {
            Some(pad) => pad,
            None => TokenIds::read(dir.as_ref())?.pad,
        };
        Ok(Self { vocab: sizes.vocab, positions: sizes.positions, pad })
    }

    /// With room for `virtual_tokens` beside a text, and at most `longest` tokens of it.
    #[must_use]
    pub fn within(self, longest: i64, virtual_tokens: i64) -> Self {
        let room = self.positions.map_or(i64::MAX, |positions| positions.saturating_sub(virtual_tokens));
        Self { positions: Some(room.min(longest)), ..self }
    }
}
