//! LoHa: a low-rank Hadamard product. Hyeon-Woo et al. 2021 (FedPara), <https://arxiv.org/abs/2108.06098>,
//! section 2.2; Yeh et al. 2023 (LyCORIS), <https://arxiv.org/abs/2309.14859>.
//!
//! `y = W x + b + s · (W₁ₐ W₁ᵦ ⊙ W₂ₐ W₂ᵦ) x`, with `s = alpha/r`: a rank of up to r² from two products of rank r.

use crate::error::Result;
use crate::methods::config::{Common, PeftConfig, whole};
use crate::methods::lycoris::Dropout;
use crate::methods::ranks::{Ranks, SiteRank};
use crate::seam::{Adapter, Init, Inner, Method, MethodConfig, Outline, Params, Resolved, Site, Weights};
use crate::target::{Adaptable, Layers, Patterns, Targets, defaults};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Configuration of LoHa; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | W₁ₐ | `[out, r]` | `<site>.hada_w1_a` | U(±1/√r) |
/// | W₁ᵦ | `[r, in]` | `<site>.hada_w1_b` | U(±1/√in) |
/// | W₂ₐ | `[out, r]` | `<site>.hada_w2_a` | U(±1/√r) |
/// | W₂ᵦ | `[r, in]` | `<site>.hada_w2_b` | 0; U(±1/√in) for `init_weights: false` |
///
/// PEFT has no LoHa on GPT-2's `Conv1D`, and cannot read an adapter with one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoHaConfig {
    /// Rank of each of the two products.
    pub r: i64,
    /// Numerator of the scale, which is `alpha/r`.
    #[serde(serialize_with = "whole")]
    pub alpha: f64,
    /// Probability in training that an output is not adapted; the others are scaled up by their share.
    pub rank_dropout: f64,
    /// Probability in training that a call of a layer goes past its adapter.
    pub module_dropout: f64,
    /// Whether the adapter starts without effect.
    pub init_weights: bool,
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

impl Default for LoHaConfig {
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 8.0,
            rank_dropout: 0.0,
            module_dropout: 0.0,
            init_weights: true,
            targets: Targets::default(),
            layers: Layers::default(),
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            common: Common::default(),
        }
    }
}

impl LoHaConfig {
    fn dropout(&self) -> Dropout {
        Dropout { rank: self.rank_dropout, rescaled: true, module: self.module_dropout }
    }
}

const NAME: &str = "LoHa";
const CAN: Adaptable = Adaptable::linear(NAME, defaults::lora);

impl PeftConfig for LoHaConfig {
    const TYPE: &'static str = "LOHA";
    const DEFAULTS: &'static str = r#"{"use_effective_conv2d": false}"#;
}

impl MethodConfig for LoHaConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.dropout().check(NAME)?;
        self.common.resolve(NAME, outline)?;
        let found = self.targets.resolve(&CAN, &self.layers, self.common.saved(), outline)?;
        let alpha = ("alpha", self.alpha);
        let ranks = Ranks::new(NAME, self.r, alpha, [&self.rank_pattern, &self.alpha_pattern]);
        let sites = ranks.resolve(found.sites)?;
        self.targets.target_modules = Some(found.names);
        Ok(self.resolved(|config| LoHaMethod { config, sites }))
    }
}

/// LoHa in one model.
#[derive(Debug)]
struct LoHaMethod {
    config: Arc<LoHaConfig>,
    /// The adapted layers.
    sites: BTreeMap<String, SiteRank>,
}

impl Method for LoHaMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let (Some(&SiteRank { r, scaling }), Some((out, inp))) = (self.sites.get(site.name), site.linear())
        else {
            return Ok(None);
        };
        let last = if self.config.init_weights { Init::Zeros } else { Init::KaimingUniform };
        Ok(Some(Box::new(LoHa {
            w1_a: site.param(params, "hada_w1_a", &[out, r], Init::KaimingUniform)?,
            w1_b: site.param(params, "hada_w1_b", &[r, inp], Init::KaimingUniform)?,
            w2_a: site.param(params, "hada_w2_a", &[out, r], Init::KaimingUniform)?,
            w2_b: site.param(params, "hada_w2_b", &[r, inp], last)?,
            scaling,
            dropout: self.config.dropout(),
        })))
    }
}

/// LoHa at one linear layer.
#[derive(Debug)]
struct LoHa {
    /// `[out, r]`
    w1_a: Tensor,
    /// `[r, in]`
    w1_b: Tensor,
    /// `[out, r]`
    w2_a: Tensor,
    /// `[r, in]`
    w2_b: Tensor,
    scaling: f64,
    dropout: Dropout,
}

impl LoHa {
    /// `ΔW`, `[out, in]`.
    fn delta(&self) -> Result<Tensor> {
        let first = self.w1_a.f_mul_scalar(self.scaling)?.f_mm(&self.w1_b)?;
        Ok(first.f_mul(&self.w2_a.f_mm(&self.w2_b)?)?)
    }

    /// `ΔW x`, `[.., out]`. ΔW is itself a product of rank r²: entry (o, i) is
    /// `Σₖₗ (W₁ₐ[o, k] W₂ₐ[o, l]) (W₁ᵦ[k, i] W₂ᵦ[l, i])`. Where that is thin, ΔW is not formed.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let ((out, r), (_, inp)) = (self.w1_a.size2()?, self.w1_b.size2()?);
        let rank = r.saturating_mul(r);
        if rank.saturating_mul(out.saturating_add(inp)) >= out.saturating_mul(inp) {
            return Ok(x.f_linear(&self.delta()?, None::<Tensor>)?);
        }
        let first = self.w1_a.f_mul_scalar(self.scaling)?;
        let up = first.f_unsqueeze(2)?.f_mul(&self.w2_a.f_unsqueeze(1)?)?.f_view([out, rank])?;
        let down = self.w1_b.f_unsqueeze(1)?.f_mul(&self.w2_b.f_unsqueeze(0)?)?.f_view([rank, inp])?;
        Ok(x.f_linear(&down, None::<Tensor>)?.f_linear(&up, None::<Tensor>)?)
    }
}

impl Adapter for LoHa {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        w.plus(&self.delta()?)
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
