//! AdaLoRA: LoRA as a singular value decomposition whose least important values are pruned in training. Zhang et al.
//! 2023, <https://arxiv.org/abs/2303.10512>, section 3; the pruning is in `adalora/allocator.rs`.
//!
//! `y = W x + b + s · B (E ⊙ (A drop(x)))`, with `s = lora_alpha / init_r`.

mod adapter;
mod allocator;
mod config;

pub use adapter::AdaLora;
pub use config::AdaLoraConfig;

use crate::error::Result;
use crate::methods::adalora::allocator::RankAllocator;
use crate::methods::adalora::config::NAME;
use crate::methods::config::PeftConfig;
use crate::methods::lora::Tie;
use crate::seam::{Adapter, Init, Method, MethodConfig, Outline, Overlay, PREFIX, Params, Resolved, Site};
use crate::target::{Adaptable, defaults};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tch::Tensor;

const CAN: Adaptable = Adaptable::linear(NAME, defaults::ada_lora);

/// Name of a tensor of the adapter.
fn key(site: &str, leaf: &str) -> String {
    format!("{PREFIX}{site}.{leaf}")
}

impl PeftConfig for AdaLoraConfig {
    const TYPE: &'static str = "ADALORA";
    const DEFAULTS: &'static str = r#"{
        "alora_invocation_tokens": null, "arrow_config": null, "bias": "none", "corda_config": null,
        "eva_config": null, "kasa_config": null, "layer_replication": null,
        "loftq_config": {}, "lora_bias": false, "lora_ga_config": null, "megatron_config": null,
        "megatron_core": "megatron.core", "monteclora_config": null, "qalora_group_size": 16,
        "target_parameters": null, "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
        "use_qalora": false, "velora_config": null
    }"#;
    const INERT: &'static str = r#"{
        "corda_config": true, "eva_config": true, "loftq_config": true, "lora_ga_config": true,
        "megatron_config": true, "megatron_core": true, "qalora_group_size": true
    }"#;
}

impl MethodConfig for AdaLoraConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.check()?;
        let tie = match self.ensure_weight_tying {
            true => Tie::of(NAME, &mut self.common, &mut self.targets, outline)?,
            false => None,
        };
        self.common.resolve(NAME, outline)?;
        let found = self.targets.resolve(&CAN, &self.layers, self.common.saved(), outline)?;
        self.check_pattern(&found.sites)?;
        self.targets.target_modules = Some(found.names);
        self.fan_in_fan_out = found.transposed;
        Ok(self.resolved(|config| AdaLoraMethod { config, sites: found.sites, tie }))
    }
}

/// AdaLoRA in one model.
#[derive(Debug)]
struct AdaLoraMethod {
    config: Arc<AdaLoraConfig>,
    /// The adapted layers.
    sites: BTreeSet<String>,
    /// What is tied.
    tie: Option<Tie>,
}

impl Method for AdaLoraMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Some((out, inp)) = site.linear_of(&self.sites) else { return Ok(None) };
        let config = &self.config;
        let r = config.rank(site.name);
        let (vectors, values) = match config.init_lora_weights {
            true => (Init::Normal { std: 0.02 }, Init::Zeros),
            false => (Init::Normal { std: 1.0 }, Init::Normal { std: 1.0 }),
        };
        let a = site.param(params, "lora_A", &[r, inp], vectors)?;
        let e = site.param(params, "lora_E", &[r, 1], values)?;
        let b = site.param(params, "lora_B", &[out, r], vectors)?;
        Ok(Some(Box::new(AdaLora { a, e, b, scaling: config.scaling(), dropout: config.lora_dropout })))
    }

    fn overlay(&self, param: &str) -> Option<Overlay> {
        self.config.common.overlay(PREFIX, &self.tie.as_ref()?.copied(param)?)
    }

    /// `w · mean over all A and B of ‖A Aᵀ − I‖ and ‖Bᵀ B − I‖`, in Frobenius norms.
    fn penalty(&self, params: &Params) -> Result<Option<Tensor>> {
        if self.config.orth_reg_weight == 0.0 {
            return Ok(None);
        }
        let mut norms = Vec::new();
        for site in &self.sites {
            let a = params.find(&key(site, "lora_A"));
            let b = params.find(&key(site, "lora_B")).map(|b| b.f_tr()).transpose()?;
            for rows in [a, b].into_iter().flatten() {
                let unit = Tensor::f_eye(rows.size2()?.0, (rows.kind(), rows.device()))?;
                norms.push(rows.f_mm(&rows.f_tr()?)?.f_sub(&unit)?.f_norm()?);
            }
        }
        let mean = Tensor::f_stack(&norms, 0)?.f_mean(None)?;
        Ok(Some(mean.f_mul_scalar(self.config.orth_reg_weight)?))
    }

    fn after_step(&self, params: &Params, step: u64) -> Result<()> {
        RankAllocator::new(self, params).after_step(step)
    }

    fn export(&self, params: &Params) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = RankAllocator::new(self, params).pruned()?;
        self.tie.iter().try_for_each(|tie| tie.export(&mut tensors))?;
        Ok(tensors)
    }

    fn import(&self, place: &str, mut tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        self.tie.iter().try_for_each(|tie| tie.import(place, &mut tensors))?;
        Ok(tensors)
    }

    fn amend(&self, params: &Params, file: &mut Map<String, Value>) -> Result<()> {
        let pruned = RankAllocator::new(self, params).rank_pattern()?;
        file.extend(pruned.map(|pattern| ("rank_pattern".to_owned(), json!(pattern))));
        self.tie.iter().for_each(|tie| tie.name_head(file));
        Ok(())
    }

    /// PEFT counts the rank of each layer, a number that is never trained, as a parameter.
    fn uncounted(&self, _params: &Params) -> i64 {
        i64::try_from(self.sites.len()).unwrap_or(i64::MAX)
    }
}
