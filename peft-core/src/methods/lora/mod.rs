//! LoRA: low-rank adaptation. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, section 4.1; rsLoRA: Kalajdzievski
//! 2023, <https://arxiv.org/abs/2312.03732>.
//!
//! `y = W x + b + s · B A drop(x)`, with `s = alpha/r`, or `alpha/√r` for rsLoRA. At an embedding,
//! `y = E[ids] + s · (B A)ᵀ[ids]`. PEFT gives the padding token's column of A no gradient; here it has what the model
//! gives it, which is none where padding is masked.

mod bias;
mod config;
mod dora;
mod embedding;
mod linear;
mod names;
mod plan;
mod start;
mod tie;

pub use bias::Bias;
pub use config::{LoraConfig, TokenIndices};
pub use dora::{Dora, EmbeddingDora};
pub use embedding::EmbeddingLora;
pub use linear::Lora;
pub use start::InitLora;
pub(crate) use tie::Tie;

use crate::error::Result;
use crate::methods::config::PeftConfig;
use crate::methods::lora::names::{BASE, NAME};
use crate::methods::lora::plan::LoraPlan;
use crate::methods::ranks::SiteRank;
use crate::seam::{
    Adapter, Counting, FactorNames, Method, MethodConfig, Outline, Overlay, PREFIX, Params, Resolved, Site,
    numel,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::Tensor;

impl PeftConfig for LoraConfig {
    const TYPE: &'static str = "LORA";
    const DEFAULTS: &'static str = r#"{
        "alora_invocation_tokens": null, "arrow_config": null, "corda_config": null, "eva_config": null,
        "kasa_config": null, "layer_replication": null, "loftq_config": {},
        "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
        "monteclora_config": null, "qalora_group_size": 16, "use_bdlora": null, "use_qalora": false,
        "velora_config": null
    }"#;
    const INERT: &'static str = r#"{
        "corda_config": true, "eva_config": true, "init_lora_weights": ["eva", "orthogonal", "lora_ga"],
        "loftq_config": true, "lora_ga_config": true, "megatron_config": true, "megatron_core": true,
        "qalora_group_size": true
    }"#;
}

impl MethodConfig for LoraConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.check()?;
        let tie = match self.ensure_weight_tying {
            true => Tie::of(NAME, &mut self.common, &mut self.targets, outline)?,
            false => None,
        };
        self.common.resolve(NAME, outline)?;
        let plan = self.plan(outline, tie)?;
        Ok(self.resolved(|config| LoraMethod { config, plan }))
    }
}

/// LoRA in one model.
#[derive(Debug)]
struct LoraMethod {
    config: Arc<LoraConfig>,
    plan: LoraPlan,
}

impl Method for LoraMethod {
    fn name(&self) -> &'static str {
        if self.config.use_dora { dora::NAME } else { NAME }
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        if let Some(rows) = self.plan.tokens.adapt(site, params, false)? {
            return Ok(Some(rows));
        }
        let Some(rank) = self.plan.sites.get(site.name) else { return Ok(None) };
        let adapter: Box<dyn Adapter> = if let Some((out, inp)) = site.linear() {
            let tied = self.plan.tie.as_ref().map(|tie| tie.lora(&self.config, *rank, site, params));
            let lora = match tied.transpose()?.flatten() {
                Some(lora) => lora,
                None => Lora::new(&self.config, *rank, site, [out, inp], params)?,
            };
            if self.config.use_dora { Box::new(Dora::new(lora, site, params)?) } else { Box::new(lora) }
        } else if let Some((vocab, dim)) = site.embedding() {
            let lora = EmbeddingLora::new(&self.config, *rank, site, [vocab, dim], params)?;
            if self.config.use_dora {
                Box::new(EmbeddingDora::new(lora, site, params)?)
            } else {
                Box::new(lora)
            }
        } else {
            return Ok(None);
        };
        Ok(Some(adapter))
    }

    fn overlay(&self, param: &str) -> Option<Overlay> {
        let copied = self.plan.tie.as_ref().and_then(|tie| tie.copied(param));
        let saved = self.config.common.overlay(PREFIX, copied.as_deref().unwrap_or(param));
        let base = || {
            let site = param.strip_suffix(".weight")?;
            let tied = *self.plan.bases.get(site)?;
            let counting = if tied { Counting::Adds } else { Counting::Replaces };
            let own = self.plan.tie.as_ref().and_then(|tie| tie.base(site)).unwrap_or(site);
            Some(Overlay { key: format!("{PREFIX}{own}{BASE}"), counting, saved_beside: true })
        };
        let bias = || {
            let key = self.config.bias.key(param, |site| self.plan.sites.contains_key(site))?;
            Some(Overlay { key, counting: Counting::Replaces, saved_beside: false })
        };
        saved.or_else(base).or_else(bias)
    }

    fn export(&self, params: &Params) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = params.tensors();
        bias::restore_copies(&mut tensors);
        self.plan.tie.as_ref().map_or(Ok(()), |tie| tie.export(&mut tensors))?;
        Ok(tensors)
    }

    fn import(&self, place: &str, mut tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        if self.config.bias == Bias::All {
            bias::drop_copies(place, &mut tensors)?;
        }
        self.plan.tie.as_ref().map_or(Ok(()), |tie| tie.import(place, &mut tensors))?;
        self.plan.tokens.import(place, &mut tensors)?;
        Ok(tensors)
    }

    fn amend(&self, _: &Params, file: &mut Map<String, Value>) -> Result<()> {
        self.plan.tie.iter().for_each(|tie| tie.name_head(file));
        Ok(())
    }

    fn frozen(&self, name: &str) -> bool {
        name.ends_with(BASE)
    }

    fn inert(&self, name: &str) -> bool {
        self.config.bias == Bias::All && bias::is_original(name)
    }

    /// Below 0 for tensors of the file that are not parameters of their own: copies of a tied weight, and what PEFT wrote
    /// by accident.
    fn uncounted(&self, params: &Params) -> i64 {
        let tied = |name: &str| {
            let site = name.strip_prefix(PREFIX).and_then(|n| n.strip_suffix(BASE));
            site.is_some_and(|site| self.plan.bases.get(site) == Some(&true))
        };
        let extra = params.tensors().into_iter().filter(|(name, _)| bias::is_original(name) || tied(name));
        extra.map(|(_, t)| numel(&t)).fold(0, i64::saturating_sub)
    }

    fn factors(&self) -> Vec<FactorNames> {
        let pair = |(site, rank): (&String, &SiteRank)| {
            let [a, b] = ["lora_A", "lora_B"].map(|leaf| format!("{PREFIX}{site}.{leaf}.weight"));
            FactorNames { a, b, scaling: rank.scaling }
        };
        self.plan.sites.iter().map(pair).collect()
    }
}
