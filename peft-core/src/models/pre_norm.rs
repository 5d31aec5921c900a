//! A layer of a causal model: `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.

use crate::error::Result;
use crate::models::activation::HiddenAct;
use crate::models::attention::SelfAttention;
use crate::models::rope::Rope;
use crate::seam::{Block, Layer, Pass};
use tch::Tensor;

/// One layer. What its parts are called, and in which order they are read, is the family's.
#[derive(Debug)]
pub(super) struct PreNorm {
    pub whole: Block,
    pub attention_norm: Layer,
    pub attention_block: Block,
    pub attention: SelfAttention,
    pub feed_forward_norm: Layer,
    pub feed_forward_block: Block,
    pub feed_forward: FeedForward,
}

/// `down(act(up(x)))`, or with a gate `down(act(gate(x)) ⊙ up(x))`.
#[derive(Debug)]
pub(super) struct FeedForward {
    pub gate: Option<Layer>,
    pub up: Layer,
    pub down: Layer,
    pub act: HiddenAct,
    /// Share of the output that is dropped in training.
    pub dropout: f64,
}

impl PreNorm {
    /// `[batch, t, hidden]` to the same.
    pub fn forward(&self, x: &Tensor, rope: Option<&Rope>, pass: Pass<'_>) -> Result<Tensor> {
        self.whole.around(x, pass, &|x, pass| {
            let h = self.attention_norm.forward(x, pass)?;
            let attend = |h: &Tensor, pass: Pass<'_>| self.attention.forward(h, rope, pass);
            let x = x.f_add(&self.attention_block.around(&h, pass, &attend)?)?;
            let h = self.feed_forward_norm.forward(&x, pass)?;
            let f = |h: &Tensor, pass: Pass<'_>| self.feed_forward.forward(h, pass);
            Ok(x.f_add(&self.feed_forward_block.around(&h, pass, &f)?)?)
        })
    }
}

impl FeedForward {
    fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        let h = match &self.gate {
            Some(gate) => self.act.apply(&gate.forward(x, pass)?)?.f_mul(&self.up.forward(x, pass)?)?,
            None => self.act.apply(&self.up.forward(x, pass)?)?,
        };
        pass.dropped(self.down.forward(&h, pass)?, self.dropout)
    }
}
