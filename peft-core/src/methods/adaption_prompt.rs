//! LLaMA-Adapter: zero-init attention. Zhang et al. 2023, <https://arxiv.org/abs/2303.16199>, section 3, as PEFT
//! computes it.
//!
//! In the last layers, the queries attend to `T` trained vectors as well, in a softmax of their own behind a gate:
//! `y = W_o (softmax(Q Kᵀ/√d) V + g · softmax(Q P_kᵀ/√d) P_v)`, with `P_k = W_k P`, `P_v = W_v P` by the layer's
//! own projections, without positions and without a mask. The gate starts at 0. In GPT-2 PEFT adds the second term
//! behind the output projection.

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig, without_modules_to_save};
use crate::seam::{
    Attended, AttentionAdapter, AttentionInner, Heads, Init, Method, MethodConfig, Outline, Params, Place,
    Resolved, Site, SiteKind, attend_to,
};
use crate::target::no_target;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use tch::Tensor;

/// Configuration of LLaMA-Adapter; field names are PEFT's, which calls it adaption prompt.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | P | `[1, adapter_len, hidden]` | `<attention>.adaption_prompt` | N(0, 1) |
/// | g | `[1]` | `<attention>.adaption_gate` | 0 |
///
/// PEFT has it for Llama, Mistral and GPT-2. Here every model's attention can be named in `target_modules`; PEFT does
/// not read such a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaptionPromptConfig {
    /// The last part of the attentions' names; `None` is PEFT's for the model type.
    pub target_modules: Option<String>,
    /// How many trained vectors a layer has.
    pub adapter_len: i64,
    /// How many layers have it, counted from the last.
    pub adapter_layers: i64,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

const NAME: &str = "adaption prompt";

/// PEFT's table by model type: the attention that is adapted, and whether the branch is added behind its output
/// projection and not before it.
const FAMILIES: &[(&str, &str, bool)] =
    &[("llama", "self_attn", false), ("mistral", "self_attn", false), ("gpt2", "attn", true)];

impl PeftConfig for AdaptionPromptConfig {
    const TYPE: &'static str = "ADAPTION_PROMPT";
}

impl AdaptionPromptConfig {
    /// The attentions that `target` names, in the model's order.
    fn find(&self, target: &str, outline: &Outline) -> Result<Vec<String>> {
        let attentions =
            || outline.sites.iter().filter(|s| s.kind == SiteKind::Attention).map(|s| s.name.as_str());
        let end = format!(".{target}");
        let found: Vec<String> = attentions().filter(|n| n.ends_with(&end)).map(str::to_owned).collect();
        if found.is_empty() {
            return Err(no_target(NAME, "target_modules", target, attentions()));
        }
        Ok(found)
    }
}

impl MethodConfig for AdaptionPromptConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        check::positive(NAME, "adapter_len", self.adapter_len)?;
        check::positive(NAME, "adapter_layers", self.adapter_layers)?;
        let model = &outline.dims.model_type;
        let family = FAMILIES.iter().find(|(family, ..)| family == model);
        let (target, behind_output) = match (&self.target_modules, family) {
            (Some(target), family) => (target.clone(), family.is_some_and(|(.., behind)| *behind)),
            (None, Some((_, target, behind))) => ((*target).to_owned(), *behind),
            (None, None) => {
                let message = format!("there is no default for {}: name its attention", outline.dims.model());
                return Err(Error::config(NAME, "target_modules", message));
            }
        };
        let found = self.find(&target, outline)?;
        let unused =
            usize::try_from(self.adapter_layers).ok().and_then(|wanted| found.len().checked_sub(wanted));
        let Some(unused) = unused else {
            let message =
                format!("is {}, and the model has {} such layers", self.adapter_layers, found.len());
            return Err(Error::config(NAME, "adapter_layers", message));
        };
        let sites: BTreeSet<String> = found.into_iter().skip(unused).collect();
        self.target_modules = Some(target);
        // PEFT runs the branch through the whole output layer, so that its bias counts twice.
        let biased = sites.iter().find(|s| outline.params.contains(&format!("{s}.o_proj.bias")));
        if let Some(site) = biased {
            let why = "its output projection has a bias, which Python PEFT adds twice".to_owned();
            return Err(Error::Unsupported { method: NAME, site: site.clone(), why });
        }
        self.common.resolve(NAME, outline)?;
        let length = self.adapter_len;
        Ok(self.resolved(|_| AdaptionPromptMethod { sites, length, behind_output }))
    }
}

/// LLaMA-Adapter in one model.
#[derive(Debug)]
struct AdaptionPromptMethod {
    /// The attentions that have it.
    sites: BTreeSet<String>,
    /// How many trained vectors a layer has.
    length: i64,
    /// Whether the branch is added behind the output projection.
    behind_output: bool,
}

impl Method for AdaptionPromptMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attend(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn AttentionAdapter>>> {
        if !matches!(site.place, Place::Attention) || !self.sites.contains(site.name) {
            return Ok(None);
        }
        let shape = [1, self.length, site.dims.sizes()?.hidden];
        Ok(Some(Box::new(AdaptionPrompt {
            prompt: site.param(params, "adaption_prompt", &shape, Init::Normal { std: 1.0 })?,
            gate: site.param(params, "adaption_gate", &[1], Init::Zeros)?,
            behind_output: self.behind_output,
        })))
    }

    /// PEFT's file has no `modules_to_save`.
    fn amend(&self, _: &Params, file: &mut Map<String, Value>) -> Result<()> {
        without_modules_to_save(file);
        Ok(())
    }
}

/// One layer's prompt `[1, T, hidden]` and gate `[1]`.
#[derive(Debug)]
struct AdaptionPrompt {
    prompt: Tensor,
    gate: Tensor,
    /// Added behind the output projection, and not before it.
    behind_output: bool,
}

impl AdaptionPrompt {
    /// `g · softmax(Q P_kᵀ/√d) P_v`.
    fn branch(&self, q: &Tensor, inner: &AttentionInner<'_>) -> Result<Tensor> {
        let (k, v) = inner.project(&self.prompt.f_to_kind(q.kind())?)?;
        attend_to(q, &k, &v.f_mul(&self.gate)?)
    }
}

impl AttentionAdapter for AdaptionPrompt {
    fn forward(&self, heads: Heads, inner: &AttentionInner<'_>) -> Result<Attended> {
        let branch = self.branch(&heads.q, inner)?;
        let attended = inner.forward(heads)?;
        if self.behind_output { attended.plus_behind(branch) } else { attended.plus(&branch) }
    }
}
