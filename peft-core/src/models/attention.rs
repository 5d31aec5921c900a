//! Self-attention as all families have it: projections, grouped heads, rotary positions, the core, the output.

use crate::error::Result;
use crate::models::rope::Rope;
use crate::seam::{Attention, Heads, Layer, Pass};
use tch::Tensor;

/// The layers that make queries, keys and values.
#[derive(Debug)]
pub(super) enum Projections {
    Separate {
        q: Layer,
        k: Layer,
        v: Layer,
    },
    /// One layer for the three, side by side.
    Fused(Layer),
}

/// Self-attention of one layer of a model.
#[derive(Debug)]
pub(super) struct SelfAttention {
    pub projections: Projections,
    pub core: Attention,
    pub output: Layer,
    /// Share of the output that is dropped in training.
    pub output_dropout: f64,
    pub heads: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    /// How many tokens one sees, itself included; the masks of a call say it too.
    pub window: Option<i64>,
}

impl SelfAttention {
    /// `[batch, t, heads · d]` to `[batch, heads, t, d]`.
    fn split(&self, x: &Tensor, heads: i64) -> Result<Tensor> {
        let (b, t, _) = x.size3()?;
        Ok(x.f_view([b, t, heads, self.head_dim])?.f_transpose(1, 2)?)
    }

    /// `[batch, heads, t, d]` to `[batch, t, heads · d]`.
    fn join(&self, x: &Tensor) -> Result<Tensor> {
        let (b, heads, t, d) = x.size4()?;
        Ok(x.f_transpose(1, 2)?.f_reshape([b, t, heads.saturating_mul(d)])?)
    }

    /// Queries, keys and values of `x`.
    fn qkv(&self, x: &Tensor, pass: Pass<'_>) -> Result<[Tensor; 3]> {
        match &self.projections {
            Projections::Separate { q, k, v } => Ok([
                self.split(&q.forward(x, pass)?, self.heads)?,
                self.split(&k.forward(x, pass)?, self.kv_heads)?,
                self.split(&v.forward(x, pass)?, self.kv_heads)?,
            ]),
            Projections::Fused(layer) => self.thirds(&layer.forward(x, pass)?),
        }
    }

    fn thirds(&self, packed: &Tensor) -> Result<[Tensor; 3]> {
        let width = self.heads.saturating_mul(self.head_dim);
        let part = |i: i64| -> Result<Tensor> {
            let third = packed.f_narrow(-1, i.saturating_mul(width), width)?;
            let (b, t, _) = third.size3()?;
            Ok(third.f_reshape([b, t, self.heads, self.head_dim])?.f_transpose(1, 2)?)
        };
        Ok([part(0)?, part(1)?, part(2)?])
    }

    /// Keys and values of other hidden states, without positions.
    fn keys_and_values(&self, hidden: &Tensor, pass: Pass<'_>) -> Result<(Tensor, Tensor)> {
        match &self.projections {
            Projections::Separate { k, v, .. } => Ok((
                self.split(&k.forward(hidden, pass)?, self.kv_heads)?,
                self.split(&v.forward(hidden, pass)?, self.kv_heads)?,
            )),
            Projections::Fused(layer) => {
                let [_, k, v] = self.thirds(&layer.forward(hidden, pass)?)?;
                Ok((k, v))
            }
        }
    }

    /// `[batch, t, hidden]` to the same.
    pub fn forward(&self, x: &Tensor, rope: Option<&Rope>, pass: Pass<'_>) -> Result<Tensor> {
        let [mut q, mut k, v] = self.qkv(x, pass)?;
        if let Some(rope) = rope {
            (q, k) = (rope.apply(&q)?, rope.apply(&k)?);
        }
        let heads = Heads {
            q,
            k,
            v,
            mask: pass.mask.map(Tensor::shallow_clone),
            causal: pass.causal,
            window: self.window,
        };
        let project = |hidden: &Tensor| self.keys_and_values(hidden, pass);
        let output = |y: Tensor| pass.dropped(self.output.forward(&y, pass)?, self.output_dropout);
        self.core.forward(heads, pass, &project)?.through(|y| self.join(y), output)
    }
}
