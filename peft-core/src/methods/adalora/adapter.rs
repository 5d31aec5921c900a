//! The product itself.

use crate::error::Result;
use crate::methods::accumulate::accumulate;
use crate::seam::{Adapter, Inner, LowRank, Weights};
use tch::Tensor;

/// AdaLoRA at one linear layer.
#[derive(Debug)]
pub struct AdaLora {
    /// The right singular vectors A, `[r, in]`.
    pub a: Tensor,
    /// The singular values E, `[r, 1]`.
    pub e: Tensor,
    /// The left singular vectors B, `[out, r]`.
    pub b: Tensor,
    /// The scale of the product.
    pub scaling: f64,
    /// Probability that an input of A is dropped in training.
    pub dropout: f64,
}

impl AdaLora {
    /// `ΔW = s · B (E ⊙ A)`
    fn change(&self) -> Result<LowRank> {
        let (a, b) = (self.a.f_mul(&self.e)?, self.b.shallow_clone());
        Ok(LowRank { a, b, scale: self.scaling, bias: None })
    }
}

impl Adapter for AdaLora {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        w.plus(&self.change()?.delta()?)
    }

    fn low_rank(&self) -> Result<Option<LowRank>> {
        self.change().map(Some)
    }

    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        accumulate(x, inner, &self.b, |x| {
            let x = inner.pass.dropped(x, self.dropout)?;
            let e = self.e.f_tr()?.f_mul_scalar(self.scaling)?;
            Ok(x.f_mm(&self.a.f_tr()?)?.f_mul(&e)?)
        })
    }
}
