//! Self-attention as all families have it: projections, grouped heads, rotary positions, the core, the output.

use crate::attention::{Attention, Heads};
use crate::layer::{Layer, Pass};
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Rotary positions. Su et al. 2021, <https://arxiv.org/abs/2104.09864>: dimension i and i + d/2 of a head are turned by
/// `position · θ^(−2i/d)`.
#[derive(Debug)]
pub(super) struct Rope {
    /// `[batch or 1, 1, t, d]`
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// For `positions` `[batch or 1, t]` and the frequencies `[d/2]`.
    pub fn new(positions: &Tensor, frequencies: &Tensor, kind: Kind) -> Result<Self> {
        let angles = positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(frequencies)?;
        let angles = Tensor::f_cat(&[&angles, &angles], -1)?.f_unsqueeze(1)?;
        Ok(Self { cos: angles.f_cos()?.f_to_kind(kind)?, sin: angles.f_sin()?.f_to_kind(kind)? })
    }

    /// `θ^(−2i/d)`, `[d/2]`.
    pub fn frequencies(theta: f64, head_dim: i64, device: Device) -> Result<Tensor> {
        let even = Tensor::f_arange_start_step(0, head_dim, 2, (Kind::Float, device))?;
        let powers = Tensor::f_full([1], theta, (Kind::Float, device))?;
        Ok(powers.f_pow(&even.f_div_scalar(head_dim as f64)?)?.f_reciprocal()?)
    }

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

/// The layers that make queries, keys and values.
#[derive(Debug)]
pub(super) enum Projections {
    Separate {
        q: Layer,
        k: Layer,
        v: Layer,
    },
    /// One layer for the three, side by side.
    Packed(Layer),
}

/// Self-attention of one layer of a model.
#[derive(Debug)]
pub(super) struct SelfAttention {
    pub projections: Projections,
    pub core: Attention,
    pub output: Layer,
    pub heads: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
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
            Projections::Packed(layer) => self.thirds(&layer.forward(x, pass)?),
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
            Projections::Packed(layer) => {
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
        let heads = Heads { q, k, v, mask: pass.mask.map(Tensor::shallow_clone), causal: pass.causal };
        let project = |hidden: &Tensor| self.keys_and_values(hidden, pass);
        let beside = self.core.beside(&heads, pass, &project)?;
        let y = self.output.forward(&self.join(&self.core.forward(heads, pass, &project)?)?, pass)?;
        match beside {
            Some(more) => Ok(y.f_add(&self.join(&more)?)?),
            None => Ok(y),
        }
    }
}
