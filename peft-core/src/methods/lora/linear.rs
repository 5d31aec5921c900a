//! LoRA at a linear layer.

use crate::error::{Error, Result};
use crate::methods::accumulate::accumulate;
use crate::methods::lora::LoraConfig;
use crate::methods::lora::names::NAME;
use crate::methods::lora::start::{InitLora, Start};
use crate::methods::ranks::SiteRank;
use crate::seam::{Adapter, Init, Inner, LowRank, Params, Site, Weights};
use tch::Tensor;

/// `y = W x + b + s · (B A drop(x) + b_B)`.
#[derive(Debug)]
pub struct Lora {
    /// The factor A, `[r, in]`.
    pub a: Tensor,
    /// The factor B, `[out, r]`.
    pub b: Tensor,
    /// The bias of B, `[out]`, if it has one.
    pub bias: Option<Tensor>,
    /// A₀ `[r, in]` and B₀ `[out, r]` of a start that was taken from the base, which then counts as W − s·B₀A₀.
    pub start: Option<(Tensor, Tensor)>,
    /// The scale of the product.
    pub scaling: f64,
    /// Probability that an input of A is dropped in training.
    pub dropout: f64,
}

impl Lora {
    pub(super) fn new(
        config: &LoraConfig,
        rank: SiteRank,
        site: &Site<'_>,
        [out, inp]: [i64; 2],
        params: &Params,
    ) -> Result<Self> {
        let (r, scaling) = (rank.r, rank.scaling);
        let (a, b, start) = match config.init_lora_weights.start(r) {
            Start::Drawn(a, b) => {
                let a = site.param(params, "lora_A.weight", &[r, inp], a)?;
                (a, site.param(params, "lora_B.weight", &[out, r], b)?, None)
            }
            Start::Taken(decomposition) => {
                let (a0, b0) = decomposition.of(site, [out, inp], params, rank)?;
                let a = site.param_from(params, "lora_A.weight", &a0.size(), || Ok(a0.f_detach_copy()?))?;
                let b = site.param_from(params, "lora_B.weight", &b0.size(), || Ok(b0.f_detach_copy()?))?;
                (a, b, Some((a0, b0)))
            }
        };
        let drawn = config.init_lora_weights == InitLora::Flag(false);
        let b_start = if drawn { Init::linear_bias(r) } else { Init::Zeros };
        let bias =
            config.lora_bias.then(|| site.param(params, "lora_B.bias", &[out], b_start)).transpose()?;
        Ok(Self { a, b, bias, start, scaling, dropout: config.lora_dropout })
    }

    /// Whether inputs are dropped in this call.
    pub(in crate::methods) fn drops(&self, train: bool) -> bool {
        train && self.dropout > 0.0
    }

    /// A, and A₀ below it: `[r or 2r, in]`.
    pub(in crate::methods) fn down(&self) -> Result<Tensor> {
        Ok(match &self.start {
            None => self.a.shallow_clone(),
            Some((a0, _)) => Tensor::f_cat(&[&self.a, a0], 0)?,
        })
    }

    /// B, and −B₀ beside it: `[out, r or 2r]`.
    pub(in crate::methods) fn up(&self) -> Result<Tensor> {
        Ok(match &self.start {
            None => self.b.shallow_clone(),
            Some((_, b0)) => Tensor::f_cat(&[&self.b, &b0.f_neg()?], 1)?,
        })
    }

    /// `ΔW = s · B A`, less `s · B₀A₀`: `[out, in]`.
    pub fn delta(&self) -> Result<Tensor> {
        Ok(self.up()?.f_matmul(&self.down()?)?.f_mul_scalar(self.scaling)?)
    }

    /// `s · x Aᵀ`, `[rows, r]`, for A or A₀: the scale is applied here, where the tensor is thin.
    pub(in crate::methods) fn thin(&self, x: &Tensor, a: &Tensor) -> Result<Tensor> {
        Ok(x.f_mm(&a.f_tr()?)?.f_mul_scalar(self.scaling)?)
    }

    /// `s · A drop(x)` and, beside it, `s · A₀ x`, of x in the dtype of A: `[rows, r or 2r]`.
    pub(in crate::methods) fn project(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let dropped = if self.drops(train) { x.f_dropout(self.dropout, true)? } else { x.shallow_clone() };
        let h = self.thin(&dropped, &self.a)?;
        Ok(match &self.start {
            None => h,
            Some((a0, _)) => Tensor::f_cat(&[&h, &self.thin(x, a0)?], 1)?,
        })
    }
}

impl Adapter for Lora {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        let bias = match (&self.bias, w.bias) {
            (None, bias) => bias,
            (Some(own), Some(b)) => Some(b.f_add(&own.f_mul_scalar(self.scaling)?)?.f_to_kind(b.kind())?),
            (Some(_), None) => {
                let why = "lora_bias can only be merged into a layer that has a bias".to_owned();
                return Err(Error::Unsupported { method: NAME, site: String::new(), why });
            }
        };
        Weights { bias, ..w }.plus(&self.delta()?)
    }

    fn low_rank(&self) -> Result<Option<LowRank>> {
        let bias = self.bias.as_ref().map(|b| b.f_mul_scalar(self.scaling)).transpose()?;
        Ok(Some(LowRank { a: self.down()?, b: self.up()?, scale: self.scaling, bias }))
    }

    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let mut y = accumulate(x, inner, &self.up()?, |x| self.project(&x, inner.pass.train))?;
        match &self.bias {
            Some(bias) => Ok(y.f_add_(&bias.f_mul_scalar(self.scaling)?.f_to_kind(y.kind())?)?),
            None => Ok(y),
        }
    }
}
