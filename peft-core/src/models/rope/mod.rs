//! Rotary positions. Su et al. 2021, <https://arxiv.org/abs/2104.09864>: dimension i and i + d/2 of a head are turned by
//! `position · θ^(−2i/d)`; and the changes of these frequencies that longer contexts are trained with.

mod frequencies;
mod read;

use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// Which frequencies the positions are turned by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    pub kind: RopeType,
}

/// `rope_type` of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeType {
    /// `θ^(−2i/d)`.
    Default,
    /// All frequencies divided by `factor`. Chen et al. 2023, <https://arxiv.org/abs/2306.15595>.
    Linear { factor: f64 },
    /// Llama 3.1's: wavelengths above `original / low` are divided by `factor`, those below `original / high` stay, and
    /// between the two it goes over linearly.
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
    /// θ grows with the length n of the call (one more than its largest position) beyond the `original` positions: to
    /// `θ · (factor · n / original − factor + 1)^(d/(d−2))`. The frequencies are those of the call's own length, for all
    /// its rows. So keys in a cache keep the frequencies they came with, as in transformers, and a text without a cache
    /// is another one beyond `original`. (transformers also remembers, for calls of between `original` and the longest
    /// length so far, the frequencies of that length; here a call means the same whatever was called before.)
    Dynamic { factor: f64, original: f64 },
    /// Frequencies that turn less than `slow` times in the `original` positions are divided by `factor`, those that turn
    /// more than `fast` times stay, and between the two it goes over linearly, from a whole dimension to a whole one if
    /// `truncate`; cosines and sines are multiplied by `attention_factor`. Peng et al. 2023,
    /// <https://arxiv.org/abs/2309.00071>.
    Yarn { factor: f64, original: f64, fast: f64, slow: f64, truncate: bool, attention_factor: f64 },
}

impl RopeConfig {
    /// For `positions` `[batch or 1, t]`.
    pub(super) fn at(&self, positions: &Tensor, head_dim: i64, kind: Kind) -> Result<Rope> {
        let frequencies = self.frequencies(positions, head_dim)?;
        let angles = positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(&frequencies)?;
        let angles = Tensor::f_cat(&[&angles, &angles], -1)?.f_unsqueeze(1)?;
        let scaled = |x: Tensor| -> Result<Tensor> {
            let x = match self.kind {
                RopeType::Yarn { attention_factor, .. } => x.f_mul_scalar(attention_factor)?,
                _ => x,
            };
            Ok(x.f_to_kind(kind)?)
        };
        Ok(Rope { cos: scaled(angles.f_cos()?)?, sin: scaled(angles.f_sin()?)? })
    }
}

/// Cosines and sines of a call's positions, `[batch or 1, 1, t, d]`.
#[derive(Debug)]
pub(super) struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// `x` `[batch, heads, t, d]`, turned.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let halves = x.f_chunk(2, -1)?;
        let [first, second] = halves.as_slice() else {
            return Err(Error::Input("rotary positions need heads of an even size".into()));
        };
        let turned = Tensor::f_cat(&[&second.f_neg()?, first], -1)?;
        Ok(x.f_mul(&self.cos)?.f_add(&turned.f_mul(&self.sin)?)?)
    }
}
