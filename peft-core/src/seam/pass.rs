//! The state of one forward call.

use crate::error::Result;
use crate::seam::cache::KvCache;
use std::num::NonZeroUsize;
use tch::Tensor;

/// What travels with one forward call, and is kept nowhere: views hold no per-call state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass<'a> {
    /// Dropout is on.
    pub train: bool,
    /// Added to the attention scores: 0 where a key may be seen, the dtype's lowest number where not;
    /// `[batch, 1, 1 or queries, keys]`.
    pub mask: Option<&'a Tensor>,
    /// Every token sees itself and those before it. Where there is a mask, it says so itself.
    pub causal: bool,
    /// Keys and values of earlier calls, for generation.
    pub cache: Option<&'a KvCache>,
    /// Which positions logits are wanted for.
    pub wanted: Wanted,
    /// So many layers at a time are computed again for the gradients, instead of keeping what is within them; see
    /// [`Stack`](crate::build::Stack).
    pub recompute: Option<NonZeroUsize>,
}

/// Which of a causal model's logits a call wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Those of every position.
    #[default]
    All,
    /// Those of the last position alone, as generation does: the head is not run over the others.
    Last,
}

impl Pass<'_> {
    /// Dropout off.
    pub fn eval() -> Self {
        Self::default()
    }
    /// Dropout on.
    pub fn train() -> Self {
        Self { train: true, ..Self::default() }
    }

    /// `x` with a share `p` of it dropped, where the call has dropout on.
    pub fn dropped(&self, x: Tensor, p: f64) -> Result<Tensor> {
        if self.train && p > 0.0 { Ok(x.f_dropout(p, true)?) } else { Ok(x) }
    }
}
