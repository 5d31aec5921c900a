//! What LoHa and LoKr have in common: rank and scale of every site, and their two kinds of dropout, as in LyCORIS
//! (Yeh et al. 2023, <https://arxiv.org/abs/2309.14859>).

use crate::target::Patterns;
use crate::{Error, Pass, Result};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Device, Kind, Tensor};

/// Rank of one site, and its scale `alpha/r`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    pub r: i64,
    pub scaling: f64,
}

/// The fields of a configuration that say them.
pub(super) struct Ranks<'a> {
    pub method: &'static str,
    pub r: i64,
    pub alpha: f64,
    pub rank_pattern: &'a Patterns,
    pub alpha_pattern: &'a Patterns,
}

impl Ranks<'_> {
    /// For every site.
    ///
    /// # Errors
    /// A rank that is no positive integer, a scale that is not finite, a pattern that matches nothing.
    pub fn resolve(&self, sites: BTreeSet<String>) -> Result<BTreeMap<String, Rank>> {
        let positive = |field: &str, r: f64| -> Result<i64> {
            if r >= 1.0 && r.fract() == 0.0 && r < 1e9 {
                return Ok(r as i64);
            }
            Err(Error::config(self.method, field, format!("should be a positive integer, is {r}")))
        };
        let finite = |field: &str, alpha: f64| -> Result<f64> {
            if alpha.is_finite() {
                Ok(alpha)
            } else {
                Err(Error::config(self.method, field, "is not finite"))
            }
        };
        let (r, alpha) = (positive("r", self.r as f64)?, finite("alpha", self.alpha)?);
        let own = |patterns: &Patterns, field: &'static str| -> Result<BTreeMap<String, f64>> {
            Ok(patterns.resolve(self.method, field, &sites)?.into_iter().collect())
        };
        let ranks = own(self.rank_pattern, "rank_pattern")?;
        let alphas = own(self.alpha_pattern, "alpha_pattern")?;
        let ranks = sites.into_iter().map(|site| {
            let r = ranks.get(&site).map_or(Ok(r), |r| positive("rank_pattern", *r))?;
            let alpha = alphas.get(&site).map_or(Ok(alpha), |alpha| finite("alpha_pattern", *alpha))?;
            Ok((site, Rank { r, scaling: alpha / r as f64 }))
        });
        ranks.collect()
    }
}

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
        for (field, p) in [("rank_dropout", self.rank), ("module_dropout", self.module)] {
            if !(0.0..1.0).contains(&p) {
                return Err(Error::config(method, field, format!("should be in [0, 1), is {p}")));
            }
        }
        Ok(())
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
