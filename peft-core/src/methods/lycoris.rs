//! What LoHa and LoKr have in common: their two kinds of dropout, as in LyCORIS (Yeh et al. 2023,
//! <https://arxiv.org/abs/2309.14859>).

use crate::check;
use crate::error::Result;
use crate::seam::Pass;
use tch::{Device, Kind, Tensor};

/// Dropout of rows of ΔW, and of ΔW as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout {
    /// Probability that an output is not adapted.
    pub rank: f64,
    /// What is left is scaled up to make up for it.
    pub rescaled: bool,
    /// Probability that a call goes past the adapter.
    pub module: f64,
}

impl Dropout {
    pub fn check(self, method: &str) -> Result<()> {
        check::share(method, "rank_dropout", self.rank)?;
        check::share(method, "module_dropout", self.module)
    }

    /// Whether this call goes past the adapter.
    pub fn skips(self, pass: Pass<'_>) -> Result<bool> {
        if !pass.train || self.module == 0.0 {
            return Ok(false);
        }
        let draw = Tensor::f_rand([1], (Kind::Float, Device::Cpu))?.f_double_value(&[0])?;
        Ok(draw <= self.module)
    }

    /// `delta` `[.., out]` with some of its outputs dropped.
    pub fn rows(self, delta: Tensor, pass: Pass<'_>) -> Result<Tensor> {
        let Some(out) = delta.size().last().copied().filter(|_| pass.train && self.rank > 0.0) else {
            return Ok(delta);
        };
        let draws = Tensor::f_rand([out], (Kind::Float, Device::Cpu))?;
        let mut kept = draws.f_gt(self.rank)?.f_to_kind(delta.kind())?;
        if self.rescaled {
            // Where nothing is kept, PEFT divides by zero.
            kept = kept.f_div(&kept.f_mean(delta.kind())?.f_clamp_min(1.0 / out as f64)?)?;
        }
        Ok(delta.f_mul(&kept.f_to(delta.device())?)?)
    }
}
