//! Prefix tuning. Li & Liang 2021, <https://arxiv.org/abs/2101.00190>, section 4.2, as P-tuning v2 and PEFT compute it.
//!
//! At every layer, `n` trained keys and values are put before the layer's own:
//! `softmax(Q [P_k; K]ᵀ/√d) [P_v; V]`.

use super::config::{Common, FileForm, PeftConfig, WRAPPED_ONCE, check_tokens, fill};
use super::Method;
use crate::attention::{AttentionAdapter, AttentionInner, Heads};
use crate::model::{Dims, Input, Prompt};
use crate::site::{Outline, Place, Site};
use crate::{Init, Params, Pass, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Configuration of prefix tuning; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | P | `[num_virtual_tokens, 2 · layers · kv_heads · d]` | `prompt_embeddings` | N(0, 1) |
///
/// Viewed as `[n, 2 · layers, kv_heads, d]`, layer l has its keys in slot 2l and its values in slot 2l + 1. They
/// enter attention as they are (no projection, no rotation); real tokens get the positions n, n + 1, ...
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixTuningConfig {
    pub num_virtual_tokens: i64,
    /// Sizes of the model, filled in when the adapter is added (with grouped heads: the key heads).
    pub token_dim: Option<i64>,
    pub num_layers: Option<i64>,
    pub num_attention_heads: Option<i64>,
    pub encoder_hidden_size: Option<i64>,
    #[serde(flatten)]
    pub common: Common,
}

impl Default for PrefixTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            token_dim: None,
            num_layers: None,
            num_attention_heads: None,
            encoder_hidden_size: None,
            common: Common::default(),
        }
    }
}

const NAME: &str = "prefix tuning";

impl PeftConfig for PrefixTuningConfig {
    const TYPE: &'static str = "PREFIX_TUNING";
    const DEFAULTS: &'static str =
        r#"{"init_weights": null, "num_transformer_submodules": 1, "prefix_projection": false}"#;
    const PREFIX: &'static str = WRAPPED_ONCE;
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Method for PrefixTuningConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        let d = &outline.dims;
        check_tokens(NAME, self.num_virtual_tokens)?;
        fill(NAME, "token_dim", &mut self.token_dim, d.kv_heads.saturating_mul(d.head_dim))?;
        fill(NAME, "num_layers", &mut self.num_layers, d.layers)?;
        fill(NAME, "num_attention_heads", &mut self.num_attention_heads, d.kv_heads)?;
        self.encoder_hidden_size = self.encoder_hidden_size.or(self.token_dim);
        self.common.prepare(NAME, outline)
    }

    fn attend(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn AttentionAdapter>>> {
        let (Place::Attention, Some(layer)) = (site.place, site.layer) else { return Ok(None) };
        let Dims { layers, kv_heads, head_dim, .. } = site.dims;
        let slots = layers.saturating_mul(2);
        let width = slots.saturating_mul(*kv_heads).saturating_mul(*head_dim);
        let n = self.num_virtual_tokens;
        let all = params.get_or_init("prompt_embeddings", &[n, width], Init::Normal { std: 1.0 })?;
        Ok(Some(Box::new(Prefix { all, view: [n, slots, *kv_heads, *head_dim], slot: layer.saturating_mul(2) })))
    }

    fn prompt(&self, _: &Dims, _: Option<&Tensor>, _: &Params) -> Result<Option<Box<dyn Prompt>>> {
        Ok(Some(Box::new(Shift(self.num_virtual_tokens))))
    }

    fn file(&self) -> Option<&dyn FileForm> {
        Some(self)
    }
}

/// The keys and values of one layer.
#[derive(Debug)]
struct Prefix {
    all: Tensor,
    view: [i64; 4],
    slot: i64,
}

impl AttentionAdapter for Prefix {
    fn name(&self) -> &'static str {
        NAME
    }

    fn forward(&self, heads: Heads, inner: &AttentionInner<'_>) -> Result<Tensor> {
        // [n, 2, kv_heads, d] -> [2, 1, kv_heads, n, d]
        let own = self.all.f_view(self.view)?.f_narrow(1, self.slot, 2)?.f_permute([1, 2, 0, 3])?.f_unsqueeze(1)?;
        inner.forward(heads.prepend(&own.f_get(0)?, &own.f_get(1)?)?)
    }
}

/// The words' positions start after the prefix.
#[derive(Debug)]
struct Shift(i64);

impl Prompt for Shift {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rewrite(&self, input: Input, _pass: Pass<'_>) -> Result<Input> {
        Ok(Input { position: input.position.saturating_add(self.0), ..input })
    }
}
