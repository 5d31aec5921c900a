//! LoKr: a Kronecker product with a low-rank factor. Yeh et al. 2023 (LyCORIS), <https://arxiv.org/abs/2309.14859>,
//! section 3.2.
//!
//! `y = W x + b + s · (W₁ ⊗ W₂) x`, with `s = alpha/r`. The sizes are split, `out = ol · ok` and `in = im · in'`; W₁ is
//! `[ol, im]`, W₂ is `[ok, in']`, and each may be a product of rank r.

mod adapter;

use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig, whole};
use crate::methods::lokr::adapter::{Factor, LoKr};
use crate::methods::lycoris::Dropout;
use crate::methods::ranks::{Ranks, SiteRank};
use crate::seam::{Adapter, Init, Method, MethodConfig, Outline, Params, Resolved, Site};
use crate::target::{Adaptable, Layers, Patterns, Targets, defaults};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Configuration of LoKr; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | W₁ | `[ol, im]` | `<site>.lokr_w1` | 0 |
/// | or W₁ₐ W₁ᵦ | `[ol, r]`, `[r, im]` | `<site>.lokr_w1_a`, `<site>.lokr_w1_b` | 0, U(±1/√im) |
/// | W₂ | `[ok, in']` | `<site>.lokr_w2` | U(±1/√in') |
/// | or W₂ₐ W₂ᵦ | `[ok, r]`, `[r, in']` | `<site>.lokr_w2_a`, `<site>.lokr_w2_b` | U(±1/√r), U(±1/√in') |
///
/// W₁ is a product with `decompose_both` where `r < max(ol, im)/2`; W₂ where `r < max(ok, in')/2`. The scale is alpha/r
/// even where nothing has the rank r.
///
/// PEFT has no LoKr on GPT-2's `Conv1D`, and cannot read an adapter with one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoKrConfig {
    /// Rank of the factors that are products.
    pub r: i64,
    /// Numerator of the scale, which is `alpha/r`.
    #[serde(serialize_with = "whole")]
    pub alpha: f64,
    /// Probability in training that an output is not adapted.
    pub rank_dropout: f64,
    /// Scale the other outputs up by their share.
    pub rank_dropout_scale: bool,
    /// Probability in training that a call of a layer goes past its adapter.
    pub module_dropout: f64,
    /// Whether the first factor of the Kronecker product may be a product of low rank as well.
    pub decompose_both: bool,
    /// Size of the first factor of the Kronecker product, `ol` and `im`, where it divides `out` or `in`; elsewhere its upper limit. −1 makes the
    /// two factors as alike as they can be. See [`factors`].
    pub decompose_factor: i64,
    /// How the two factors start.
    pub init_weights: InitLoKr,
    /// Linear layers to adapt.
    #[serde(flatten)]
    pub targets: Targets,
    /// Only some layers of the model.
    #[serde(flatten)]
    pub layers: Layers,
    /// Ranks of some sites that differ from `r`.
    pub rank_pattern: Patterns,
    /// Values of `alpha` for some sites.
    pub alpha_pattern: Patterns,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

/// PEFT's `init_weights` for LoKr: `true`, `false` or `"lycoris"` in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", expecting = "should be true, false or \"lycoris\"")]
pub enum InitLoKr {
    /// W₂ (or W₂ᵦ) starts as 0, and W₁ is drawn.
    Lycoris,
    /// `true`: W₁ (or W₁ₐ) starts as 0; `false`: nothing does.
    #[serde(untagged)]
    Flag(bool),
}

impl Default for LoKrConfig {
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 8.0,
            rank_dropout: 0.0,
            rank_dropout_scale: false,
            module_dropout: 0.0,
            decompose_both: false,
            decompose_factor: -1,
            init_weights: InitLoKr::Flag(true),
            targets: Targets::default(),
            layers: Layers::default(),
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            common: Common::default(),
        }
    }
}

impl LoKrConfig {
    fn dropout(&self) -> Dropout {
        Dropout { rank: self.rank_dropout, rescaled: self.rank_dropout_scale, module: self.module_dropout }
    }

    /// How W₁ (or W₁ₐ) and W₂ (or W₂ᵦ) start.
    fn start(&self) -> (Init, Init) {
        match self.init_weights {
            InitLoKr::Flag(true) => (Init::Zeros, Init::KaimingUniform),
            InitLoKr::Flag(false) => (Init::KaimingUniform, Init::KaimingUniform),
            InitLoKr::Lycoris => (Init::KaimingUniform, Init::Zeros),
        }
    }

    fn check(&self) -> Result<()> {
        self.dropout().check(NAME)?;
        if self.decompose_factor == -1 || self.decompose_factor > 0 {
            return Ok(());
        }
        let message = format!("should be -1 or a positive integer, is {}", self.decompose_factor);
        Err(Error::config(NAME, "decompose_factor", message))
    }
}

/// Splits `n` into two factors. A `factor` that divides n is the first of them; otherwise the first is the largest
/// divisor of n up to √n that is no larger than `factor` (−1: no limit), as PEFT and LyCORIS find it.
pub fn factors(n: i64, factor: i64) -> (i64, i64) {
    let over = |m: i64| n.checked_rem(m).filter(|rest| *rest == 0).and_then(|_| n.checked_div(m));
    if let Some(other) = over(factor).filter(|_| factor > 0) {
        return (factor, other);
    }
    let most = if factor == -1 { n } else { factor };
    let within = |m: &i64| *m <= most && m.saturating_mul(*m) <= n;
    let best = (1..).take_while(within).filter_map(|m| Some((m, over(m)?))).last();
    // PEFT looks one divisor further than √n, and puts the smaller one first: the same pair.
    best.unwrap_or((1, n))
}

const NAME: &str = "LoKr";
const CAN: Adaptable = Adaptable::linear(NAME, defaults::lora);

impl PeftConfig for LoKrConfig {
    const TYPE: &'static str = "LOKR";
    const DEFAULTS: &'static str = r#"{"use_effective_conv2d": false}"#;
}

impl MethodConfig for LoKrConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.check()?;
        self.common.resolve(NAME, outline)?;
        let found = self.targets.resolve(&CAN, &self.layers, self.common.saved(), outline)?;
        let alpha = ("alpha", self.alpha);
        let ranks = Ranks::new(NAME, self.r, alpha, [&self.rank_pattern, &self.alpha_pattern]);
        let sites = ranks.resolve(found.sites)?;
        self.targets.target_modules = Some(found.names);
        Ok(self.resolved(|config| LoKrMethod { config, sites }))
    }
}

/// LoKr in one model.
#[derive(Debug)]
struct LoKrMethod {
    config: Arc<LoKrConfig>,
    /// The adapted layers.
    sites: BTreeMap<String, SiteRank>,
}

impl Method for LoKrMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let (Some(&SiteRank { r, scaling }), Some((out, inp))) = (self.sites.get(site.name), site.linear())
        else {
            return Ok(None);
        };
        let config = &self.config;
        let ((ol, ok), (im, inp)) =
            (factors(out, config.decompose_factor), factors(inp, config.decompose_factor));
        let low = |a: i64, b: i64| r.saturating_mul(2) < a.max(b);
        let param = |leaf: &str, dims: &[i64], init| site.param(params, leaf, dims, init);
        let (first, second) = config.start();
        let w1 = if config.decompose_both && low(ol, im) {
            Factor::Product {
                a: param("lokr_w1_a", &[ol, r], first)?,
                b: param("lokr_w1_b", &[r, im], Init::KaimingUniform)?,
            }
        } else {
            Factor::Full(param("lokr_w1", &[ol, im], first)?)
        };
        let w2 = if low(ok, inp) {
            Factor::Product {
                a: param("lokr_w2_a", &[ok, r], Init::KaimingUniform)?,
                b: param("lokr_w2_b", &[r, inp], second)?,
            }
        } else {
            Factor::Full(param("lokr_w2", &[ok, inp], second)?)
        };
        Ok(Some(Box::new(LoKr { w1, w2, scaling, dropout: config.dropout() })))
    }
}

#[cfg(test)]
mod tests {
    use crate::methods::lokr::factors;

    /// Values of PEFT's `factorization`.
    #[test]
    fn sizes_are_split_as_in_peft() {
        for (n, factor, pair) in [
            (32, -1, (4, 8)),
            (64, -1, (8, 8)),
            (96, -1, (8, 12)),
            (127, -1, (1, 127)),
            (128, -1, (8, 16)),
            (360, -1, (18, 20)),
            (128, 4, (4, 32)),
            (32, 16, (16, 2)),
            (36, 5, (4, 9)),
            (30, 4, (3, 10)),
            (7, 100, (1, 7)),
            (768, -1, (24, 32)),
        ] {
            assert_eq!(factors(n, factor), pair, "{n}, {factor}");
        }
    }
}
