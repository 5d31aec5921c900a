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
mod plan;
mod start;
mod tie;

pub use bias::Bias;
pub use config::{LoraConfig, TokenIndices};
pub use dora::{Dora, EmbeddingDora};
pub use embedding::EmbeddingLora;
pub use linear::Lora;
pub use plan::LoraPlan;
pub use start::InitLora;
pub use tie::Tie;

use crate::error::Result;
use crate::methods::config::{Common, PeftConfig, to_json};
use crate::methods::ranks::SiteRank;
use crate::seam::layer::Adapter;
use crate::seam::method::{Counting, Factors, FileForm, Method, Overlay};
use crate::seam::params::Params;
use crate::seam::site::{Outline, PREFIX, Site};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::Tensor;

const NAME: &str = "LoRA";

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
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Method for LoraConfig {
    fn name(&self) -> &'static str {
        if self.use_dora { dora::NAME } else { NAME }
    }

    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        self.check()?;
        let tie = match self.ensure_weight_tying {
            true => Tie::of(NAME, &mut self.common.modules_to_save, &mut self.target_modules, outline)?,
            false => None,
        };
        self.common.prepare(NAME, outline)?;
        self.resolve(outline, tie)
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        if self.bias == Bias::All {
            for name in params.tensors().into_keys().filter(|n| bias::is_original(n)) {
                params.find(&name);
            }
        }
        if let Some(rows) = self.plan.tokens.adapt(NAME, site, params, false)? {
            return Ok(Some(rows));
        }
        let Some(rank) = self.plan.sites.get(site.name) else { return Ok(None) };
        let adapter: Box<dyn Adapter> = if let Some((out, inp)) = site.linear() {
            let tied = self.plan.tie.as_ref().map(|tie| tie.lora(self, *rank, site, params));
            let lora = match tied.transpose()?.flatten() {
                Some(lora) => lora,
                None => Lora::new(self, *rank, site, [out, inp], params)?,
            };
            if self.use_dora { Box::new(Dora::new(lora, site, params)?) } else { Box::new(lora) }
        } else if let Some((vocab, dim)) = site.embedding() {
            let lora = EmbeddingLora::new(self, *rank, site, [vocab, dim], params)?;
            if self.use_dora { Box::new(EmbeddingDora::new(lora, site, params)?) } else { Box::new(lora) }
        } else {
            return Ok(None);
        };
        Ok(Some(adapter))
    }

    fn overlay(&self, param: &str) -> Option<Overlay> {
        let copied = self.plan.tie.as_ref().and_then(|tie| tie.copied(param));
        let saved = self.common.overlay(PREFIX, copied.as_deref().unwrap_or(param));
        let base = || {
            let site = param.strip_suffix(".weight")?;
            let tied = *self.plan.bases.get(site)?;
            let counting = if tied { Counting::Adds } else { Counting::Replaces };
            let own = self.plan.tie.as_ref().and_then(|tie| tie.base(site)).unwrap_or(site);
            Some(Overlay { key: format!("{PREFIX}{own}{BASE}"), counting, beside: true })
        };
        let bias = || {
            let key = self.bias.key(param, |site| self.plan.sites.contains_key(site))?;
            Some(Overlay { key, counting: Counting::Replaces, beside: false })
        };
        saved.or_else(base).or_else(bias)
    }

    fn tokens(&self, site: &str) -> &[i64] {
        self.plan.tokens.tokens(site)
    }

    fn export(&self, params: &Params) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = params.tensors();
        bias::restore_copies(&mut tensors);
        self.plan.tie.as_ref().map_or(Ok(()), |tie| tie.export(&mut tensors))?;
        Ok(tensors)
    }

    fn import(&self, place: &str, mut tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        if self.bias == Bias::All {
            bias::drop_copies(place, &mut tensors)?;
        }
        self.plan.tie.as_ref().map_or(Ok(()), |tie| tie.import(place, &mut tensors))?;
        self.plan.tokens.import(place, &mut tensors)?;
        Ok(tensors)
    }

    fn config(&self, _: &Params) -> Result<Option<Value>> {
        let mut json = to_json(self)?;
        self.plan.tie.iter().for_each(|tie| tie.name_head(&mut json));
        Ok(Some(json))
    }

    fn frozen(&self, name: &str) -> bool {
        name.ends_with(BASE) || bias::is_original(name)
    }

    /// Neither what PEFT wrote by accident nor a copy of a tied weight is a parameter of its own.
    fn uncounted(&self, params: &Params) -> i64 {
        let tied = |name: &str| {
            let site = name.strip_prefix(PREFIX).and_then(|n| n.strip_suffix(BASE));
            site.is_some_and(|site| self.plan.bases.get(site) == Some(&true))
        };
        let extra = params.tensors().into_iter().filter(|(name, _)| bias::is_original(name) || tied(name));
        extra.map(|(_, t)| i64::try_from(t.numel()).unwrap_or(i64::MAX)).fold(0, i64::saturating_sub)
    }

    fn factors(&self) -> Vec<Factors> {
        let pair = |(site, rank): (&String, &SiteRank)| {
            let [a, b] = ["lora_A", "lora_B"].map(|leaf| format!("{PREFIX}{site}.{leaf}.weight"));
            Factors { a, b, scaling: rank.scaling }
        };
        self.plan.sites.iter().map(pair).collect()
    }

    fn file(&self) -> Option<&dyn FileForm> {
        Some(self)
    }
}

/// Ends the name of a base weight that is in the file.
const BASE: &str = ".base_layer.weight";
