//! LoRA: low-rank adaptation. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, section 4.1; rsLoRA: Kalajdzievski
//! 2023, <https://arxiv.org/abs/2312.03732>.
//!
//! `y = W x + b + s · B A drop(x)`, with `s = alpha/r`, or `alpha/√r` for rsLoRA.

use super::config::{Common, FileForm, PeftConfig, whole};
use super::Method;
use crate::site::{Outline, Site, SiteKind};
use crate::target::{Family, LayerFilter, Names, Selection, defaults};
use crate::{Adapter, Error, Init, Inner, LowRank, Params, Result, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tch::Tensor;

/// Configuration of LoRA; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | A | `[r, in]` | `<site>.lora_A.weight` | U(±1/√in), or N(0, 1/r²) for `"gaussian"` |
/// | B | `[out, r]` | `<site>.lora_B.weight` | 0; U(±1/√r) for `false` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank.
    pub r: i64,
    /// Numerator of the scale.
    #[serde(serialize_with = "whole")]
    pub lora_alpha: f64,
    /// Probability that an input of A is dropped in training. The base's own path is not touched.
    pub lora_dropout: f64,
    /// Scale by `alpha/√r`.
    pub use_rslora: bool,
    /// `true`, `false` or `"gaussian"`.
    pub init_lora_weights: InitLora,
    /// Linear layers to adapt; `None` is PEFT's default for the model type.
    pub target_modules: Option<Names>,
    pub exclude_modules: Option<Names>,
    #[serde(flatten)]
    pub common: Common,
    /// The layers that `target_modules` stands for in this model; filled when the adapter is added.
    #[serde(skip)]
    pub sites: BTreeSet<String>,
}

/// PEFT's `init_lora_weights`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum InitLora {
    /// `true`: the paper's reference code; `false`: B is drawn too, so the start is not the identity.
    Flag(bool),
    /// `"gaussian"`.
    Named(String),
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            init_lora_weights: InitLora::Flag(true),
            target_modules: None,
            exclude_modules: None,
            common: Common::default(),
            sites: BTreeSet::new(),
        }
    }
}

impl LoraConfig {
    /// `alpha/r`, or `alpha/√r` for rsLoRA.
    pub fn scaling(&self) -> f64 {
        self.lora_alpha / if self.use_rslora { (self.r as f64).sqrt() } else { self.r as f64 }
    }

    fn start(&self) -> Result<(Init, Init)> {
        match &self.init_lora_weights {
            InitLora::Flag(true) => Ok((Init::KaimingUniform, Init::Zeros)),
            InitLora::Flag(false) => Ok((Init::KaimingUniform, Init::KaimingUniform)),
            InitLora::Named(n) if n == "gaussian" => Ok((Init::Normal { std: 1.0 / self.r as f64 }, Init::Zeros)),
            InitLora::Named(n) => {
                let message = format!("`{n}` is not supported: true, false and \"gaussian\" are");
                Err(Error::config(NAME, "init_lora_weights", message))
            }
        }
    }

    fn check(&self) -> Result<()> {
        if self.r <= 0 {
            return Err(Error::config(NAME, "r", format!("should be a positive integer, is {}", self.r)));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return Err(Error::config(NAME, "lora_dropout", format!("should be in [0, 1), is {}", self.lora_dropout)));
        }
        if !self.lora_alpha.is_finite() {
            return Err(Error::config(NAME, "lora_alpha", "is not finite"));
        }
        self.start().map(drop)
    }
}

const NAME: &str = "LoRA";

impl PeftConfig for LoraConfig {
    const TYPE: &'static str = "LORA";
    const DEFAULTS: &'static str = r#"{
        "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "bias": "none",
        "corda_config": null, "ensure_weight_tying": false, "eva_config": null, "fan_in_fan_out": false,
        "kasa_config": null, "layer_replication": null, "layers_pattern": null, "layers_to_transform": null,
        "loftq_config": {}, "lora_bias": false, "lora_ga_config": null, "megatron_config": null,
        "megatron_core": "megatron.core", "monteclora_config": null, "qalora_group_size": 16, "rank_pattern": {},
        "target_parameters": null, "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
        "use_qalora": false, "velora_config": null
    }"#;
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Method for LoraConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        self.check()?;
        self.common.prepare(NAME, outline)?;
        let found = Selection {
            method: NAME,
            supported: &[SiteKind::Linear],
            target_modules: self.target_modules.as_ref(),
            default: defaults(Family::Lora, &outline.dims.model_type),
            exclude_modules: self.exclude_modules.as_ref(),
            layers: LayerFilter::default(),
            modules_to_save: self.common.saved(),
        }
        .resolve(outline)?;
        self.target_modules = Some(found.names);
        self.sites = found.sites;
        Ok(())
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Some((out, inp)) = site.linear().filter(|_| self.sites.contains(site.name)) else { return Ok(None) };
        let (init_a, init_b) = self.start()?;
        let a = site.param(params, "lora_A.weight", &[self.r, inp], init_a)?;
        let b = site.param(params, "lora_B.weight", &[out, self.r], init_b)?;
        Ok(Some(Box::new(Lora { a, b, scaling: self.scaling(), dropout: self.lora_dropout })))
    }

    fn file(&self) -> Option<&dyn FileForm> {
        Some(self)
    }
}

/// LoRA at one linear layer.
#[derive(Debug)]
pub struct Lora {
    /// `[r, in]`
    pub a: Tensor,
    /// `[out, r]`
    pub b: Tensor,
    pub scaling: f64,
    pub dropout: f64,
}

impl Lora {
    /// `ΔW = s · B A`, `[out, in]`.
    pub fn delta(&self) -> Result<Tensor> {
        Ok(self.b.f_matmul(&self.a)?.f_mul_scalar(self.scaling)?)
    }

    /// `s · A drop(x)`, `[rows, r]`: the scale is applied here, where the tensor is thin.
    fn down(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = x.f_to_kind(self.a.kind())?;
        let x = if train && self.dropout > 0.0 { x.f_dropout(self.dropout, true)? } else { x };
        Ok(x.f_mm(&self.a.f_tr()?)?.f_mul_scalar(self.scaling)?)
    }
}

impl Adapter for Lora {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reweight(&self, _site: &str, w: Weights) -> Result<Weights> {
        let weight = w.weight.f_add(&self.delta()?)?.f_to_kind(w.weight.kind())?;
        Ok(Weights { weight, ..w })
    }

    fn low_rank(&self) -> Result<Option<LowRank>> {
        let (a, b) = (self.a.shallow_clone(), self.b.shallow_clone());
        Ok(Some(LowRank { a, b, scale: self.scaling, bias: None }))
    }

    /// The low-rank product is accumulated into the base's output: no second full-size tensor is formed.
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let mut shape = x.size();
        let width = shape.pop().unwrap_or_default();
        let x = x.f_contiguous()?;
        // Two views and not one: the gradients of the two paths then meet at x in the order that y0 + s·BAx has.
        let mut y = inner.forward(&x.f_view([-1, width])?)?;
        let h = self.down(&x.f_view([-1, width])?, inner.pass.train)?;
        let b = self.b.f_tr()?;
        let y = if y.kind() == h.kind() { y.f_addmm_(&h, &b)? } else { y.f_add(&h.f_mm(&b)?)?.f_to_kind(y.kind())? };
        shape.push(self.b.size2()?.0);
        Ok(y.f_view(shape.as_slice())?)
    }
}
