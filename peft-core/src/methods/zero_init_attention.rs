//! Zero-init attention as lessons have it, with the two gates that are in use.
//!
//! `n` trained vectors P per layer become keys and values by the layer's own projections, `P_k = W_k P`, `P_v = W_v P`
//! (no positions; every query sees them), behind a gate g:
//! - tanh, of LLaMA-Adapter (Zhang et al. 2023, <https://arxiv.org/abs/2303.16199>, section 3.2): two softmaxes,
//!   `softmax(Q Kᵀ/√d) V + tanh(g) · softmax(Q P_kᵀ/√d) P_v`. With g = 0 that is the model's own attention, bit by bit.
//! - sigmoid on the scores, one softmax: `softmax([σ(g) · Q P_kᵀ/√d; Q Kᵀ/√d]) [P_v; V]`. In spite of the name this
//!   changes attention from the start: σ(0) is ½, and even a score of 0 has its share of a softmax.
//!
//! [`AdaptionPromptConfig`](super::AdaptionPromptConfig) is LLaMA-Adapter as PEFT has it: g without tanh, in the last
//! layers alone.

use crate::check;
use crate::error::Result;
use crate::methods::config::{Common, PeftConfig};
use crate::seam::{
    Attended, AttentionAdapter, AttentionInner, Heads, Init, Method, MethodConfig, Outline, Params, Place,
    Resolved, Site, attend_to,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::Tensor;

/// Configuration of gated zero-init attention. PEFT has no such method.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | P | `[num_virtual_tokens, hidden]` | `<attention>.zero_init_prompt` | N(0, 1) |
/// | g | `[1]` | `<attention>.zero_init_gate` | 0 |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ZeroInitAttentionConfig {
    /// How many vectors a layer has.
    pub num_virtual_tokens: i64,
    /// What the gate does.
    pub gate: Gate,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

/// What the gate of zero-init attention does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// `tanh(g)` times a softmax of its own.
    Tanh,
    /// `σ(g)` times the scores, within the one softmax.
    Sigmoid,
}

impl Default for ZeroInitAttentionConfig {
    fn default() -> Self {
        Self { num_virtual_tokens: 20, gate: Gate::Tanh, common: Common::default() }
    }
}

const NAME: &str = "zero-init attention";

impl PeftConfig for ZeroInitAttentionConfig {
    const TYPE: &'static str = "ZERO_INIT_ATTENTION";
}

impl MethodConfig for ZeroInitAttentionConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        check::positive(NAME, "num_virtual_tokens", self.num_virtual_tokens)?;
        self.common.resolve(NAME, outline)?;
        Ok(self.resolved(ZeroInitAttentionMethod))
    }
}

/// Zero-init attention in one model.
#[derive(Debug)]
struct ZeroInitAttentionMethod(Arc<ZeroInitAttentionConfig>);

impl Method for ZeroInitAttentionMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attend(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn AttentionAdapter>>> {
        let Place::Attention = site.place else { return Ok(None) };
        let shape = [self.0.num_virtual_tokens, site.dims.sizes()?.hidden];
        Ok(Some(Box::new(ZeroInitAttention {
            prompt: site.param(params, "zero_init_prompt", &shape, Init::Normal { std: 1.0 })?,
            gate: site.param(params, "zero_init_gate", &[1], Init::Zeros)?,
            kind: self.0.gate,
        })))
    }
}

/// One layer's prompt `[n, hidden]` and gate `[1]`.
#[derive(Debug)]
struct ZeroInitAttention {
    prompt: Tensor,
    gate: Tensor,
    kind: Gate,
}

impl AttentionAdapter for ZeroInitAttention {
    fn forward(&self, heads: Heads, inner: &AttentionInner<'_>) -> Result<Attended> {
        let (k, v) = inner.project(&self.prompt.f_to_kind(heads.q.kind())?.f_unsqueeze(0)?)?;
        match self.kind {
            // A factor of the scores is one of the keys.
            Gate::Sigmoid => {
                let k = k.f_mul(&self.gate.f_sigmoid()?)?;
                inner.forward(Heads { window: None, ..heads }.prepend(&k, &v)?)
            }
            Gate::Tanh => {
                let branch = attend_to(&heads.q, &k, &v.f_mul(&self.gate.f_tanh()?)?)?;
                inner.forward(heads)?.plus(&branch)
            }
        }
    }
}
