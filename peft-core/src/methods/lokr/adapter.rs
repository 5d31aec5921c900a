//! The product itself.

use crate::error::Result;
use crate::methods::lycoris::Dropout;
use crate::seam::{Adapter, Inner, Weights};
use tch::{Kind, Tensor};

/// A factor of the Kronecker product.
#[derive(Debug)]
pub(super) enum Factor {
    /// `[rows, columns]`
    Full(Tensor),
    /// `a` `[rows, r]`, `b` `[r, columns]`
    Product { a: Tensor, b: Tensor },
}

impl Factor {
    fn dense(&self) -> Result<Tensor> {
        match self {
            Factor::Full(w) => Ok(w.shallow_clone()),
            Factor::Product { a, b } => Ok(a.f_mm(b)?),
        }
    }
}

/// LoKr at one linear layer.
#[derive(Debug)]
pub(super) struct LoKr {
    /// `[ol, im]`
    pub w1: Factor,
    /// `[ok, in']`
    pub w2: Factor,
    pub scaling: f64,
    pub dropout: Dropout,
}

impl LoKr {
    /// `s · W₁`, the smaller factor.
    fn scaled(&self) -> Result<Tensor> {
        Ok(self.w1.dense()?.f_mul_scalar(self.scaling)?)
    }

    /// `ΔW x`, `[.., out]`, without ΔW: with x as a matrix `X [im, in']`, `(W₁ ⊗ W₂) x` is `W₁ X W₂ᵀ`.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let none = None::<Tensor>;
        let w1 = self.scaled()?;
        let (thin, last) = match &self.w2 {
            Factor::Full(w) => (w, None),
            Factor::Product { a, b } => (b, Some(a)),
        };
        let x = x.f_unflatten(-1, [w1.size2()?.1, thin.size2()?.1])?;
        // [.., im, r], [.., r, im], [.., r, ol], [.., ol, r]
        let h = x.f_linear(thin, none.as_ref())?.f_transpose(-1, -2)?;
        let h = h.f_linear(&w1, none.as_ref())?.f_transpose(-1, -2)?;
        let h = last.map(|a| h.f_linear(a, none.as_ref())).transpose()?.unwrap_or(h);
        Ok(h.f_flatten(-2, -1)?)
    }
}

impl Adapter for LoKr {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        w.plus(&self.scaled()?.f_kron(&self.w2.dense()?)?)
    }

    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let mut y = inner.forward(x)?;
        if self.dropout.skips(inner.pass)? {
            return Ok(y);
        }
        let delta = self.product(&x.f_to_kind(Kind::Float)?)?;
        Ok(y.f_add_(&self.dropout.rows(delta, inner.pass)?)?)
    }
}
