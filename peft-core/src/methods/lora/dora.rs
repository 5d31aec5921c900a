//! DoRA: magnitude and direction apart. Liu et al. 2024, <https://arxiv.org/abs/2402.09353>, section 4. It is LoRA with
//! `use_dora`, the one method that builds on another.
//!
//! With a trained magnitude m and `n = ‖W + s · B A‖` by output, through which no gradient flows (section 4.3):
//!
//! `y = b + (m/n) ⊙ (W + s · B A) x`, and with dropout `y = W x + b + (m/n − 1) ⊙ W drop(x) + (m/n) ⊙ s · B A drop(x)`,
//! as PEFT computes it. An embedding has one magnitude a dimension, with norms over the vocabulary.

use crate::error::Result;
use crate::methods::lora::{EmbeddingLora, Lora};
use crate::seam::{Adapter, Inner, Params, Site, Weights};
use tch::{Kind, Tensor};

pub(super) const NAME: &str = "DoRA";
/// Where m is stored.
const MAGNITUDE: &str = "lora_magnitude_vector";

/// DoRA at a linear layer.
#[derive(Debug)]
pub struct Dora {
    /// The change without its magnitude.
    pub lora: Lora,
    /// The magnitude m, `[out]`, which starts as the norm of W + s·BA.
    pub magnitude: Tensor,
}

impl Dora {
    pub(super) fn new(lora: Lora, site: &Site<'_>, params: &Params) -> Result<Self> {
        let norms = || norms(&site.weight()?, &lora.down()?, &lora.up()?, lora.scaling);
        let magnitude = site.param_from(params, MAGNITUDE, &[lora.b.size2()?.0], norms)?;
        Ok(Self { lora, magnitude })
    }

    /// `m/n`, `[out]`.
    fn scale(&self, w: &Tensor) -> Result<Tensor> {
        let lora = &self.lora;
        Ok(self.magnitude.f_div(&norms(w, &lora.down()?, &lora.up()?, lora.scaling)?)?)
    }

    /// The layer's output for the rows of `x`, in f32.
    fn rows(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let (lora, w) = (&self.lora, inner.weights()?);
        let scale = self.scale(&w.weight)?;
        let (less, tall) = (scale.f_sub_scalar(1.0)?, scale.f_unsqueeze(1)?);
        let y0 = inner.forward(x)?.f_to_kind(Kind::Float)?;
        if !lora.drops(inner.pass.train) {
            // (m/n) ⊙ (y0 − b) + b, arranged so that m = n is y0 to the last bit.
            let mut y = y0.f_mul(&scale)?;
            if let Some(b) = w.bias {
                y = y.f_sub_(&b.f_mul(&less)?)?;
            }
            let x = x.f_to_kind(lora.a.kind())?;
            return Ok(y.f_addmm_(&lora.project(&x, false)?, &lora.up()?.f_mul(&tall)?.f_tr()?)?);
        }
        let full = x.f_to_kind(lora.a.kind())?;
        let dropped = full.f_dropout(lora.dropout, true)?;
        let direct = inner.apply(&dropped.f_to_kind(x.kind())?, &Weights { bias: None, ..w })?;
        let mut y = y0.f_addcmul(&direct.f_to_kind(Kind::Float)?, &less)?;
        y = y.f_addmm_(&lora.thin(&dropped, &lora.a)?, &lora.b.f_mul(&tall)?.f_tr()?)?;
        if let Some((a0, b0)) = &lora.start {
            let b0 = b0.f_neg()?;
            y = y.f_addmm_(&lora.thin(&full, a0)?, &b0.f_tr()?)?;
            y = y.f_addmm_(&lora.thin(&dropped, a0)?, &b0.f_mul(&less.f_unsqueeze(1)?)?.f_tr()?)?;
        }
        Ok(y)
    }
}

impl Adapter for Dora {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        let scale = self.scale(&w.weight)?.f_unsqueeze(1)?;
        let weight = w.weight.f_add(&self.lora.delta()?)?.f_mul(&scale)?.f_to_kind(w.weight.kind())?;
        Ok(Weights { weight, ..w })
    }

    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let mut shape = x.size();
        let width = shape.pop().unwrap_or_default();
        let y = self.rows(&x.f_reshape([-1, width])?, inner)?;
        shape.push(self.lora.b.size2()?.0);
        Ok(y.f_view(shape.as_slice())?.f_to_kind(x.kind())?)
    }
}

/// DoRA at an embedding.
#[derive(Debug)]
pub struct EmbeddingDora {
    /// The change without its magnitude.
    pub lora: EmbeddingLora,
    /// The magnitude m, `[dim]`, which starts as the norm of E + ΔE.
    pub magnitude: Tensor,
}

impl EmbeddingDora {
    pub(super) fn new(lora: EmbeddingLora, site: &Site<'_>, params: &Params) -> Result<Self> {
        let norms = || norms(&site.weight()?.f_tr()?, &lora.a, &lora.b, lora.scaling);
        let magnitude = site.param_from(params, MAGNITUDE, &[lora.b.size2()?.0], norms)?;
        Ok(Self { lora, magnitude })
    }

    /// `m/n`, `[dim]`.
    fn scale(&self, w: &Tensor) -> Result<Tensor> {
        let lora = &self.lora;
        Ok(self.magnitude.f_div(&norms(&w.f_tr()?, &lora.a, &lora.b, lora.scaling)?)?)
    }
}

impl Adapter for EmbeddingDora {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        let scale = self.scale(&w.weight)?;
        let weight = w.weight.f_add(&self.lora.delta()?)?.f_mul(&scale)?.f_to_kind(w.weight.kind())?;
        Ok(Weights { weight, ..w })
    }

    fn forward(&self, ids: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let scale = self.scale(&inner.weights()?.weight)?;
        let y = inner.forward(ids)?;
        let b = self.lora.b.f_mul(&scale.f_unsqueeze(1)?)?.f_tr()?;
        let delta = self.lora.rows(ids)?.f_mm(&b)?.f_view(y.size().as_slice())?;
        Ok(y.f_mul(&scale)?.f_add(&delta)?.f_to_kind(y.kind())?)
    }
}

/// Norms of the rows of `W + s · B A` `[out, in]`, which is never formed: a row's square is
/// `‖Wᵢ‖² + 2s · Bᵢ (A Wᵢᵀ) + s² · Bᵢ (A Aᵀ) Bᵢᵀ`.
fn norms(w: &Tensor, a: &Tensor, b: &Tensor, s: f64) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let w = w.f_to_kind(Kind::Float)?;
    let (at, by_row) = (a.f_tr()?, |t: &Tensor| t.f_sum_dim_intlist(1, false, Kind::Float));
    let own = w.f_norm_scalaropt_dim(2, 1, false)?.f_square()?;
    let cross = by_row(&w.f_mm(&at)?.f_mul(b)?)?.f_mul_scalar(2.0 * s)?;
    let square = by_row(&b.f_mm(&a.f_mm(&at)?)?.f_mul(b)?)?.f_mul_scalar(s * s)?;
    Ok(own.f_add(&cross)?.f_add(&square)?.f_clamp_min(0.0)?.f_sqrt()?)
}
