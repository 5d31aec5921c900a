//! Prefix tuning. Li & Liang 2021, <https://arxiv.org/abs/2101.00190>, section 4.2, as P-tuning v2 and PEFT compute it.
//!
//! At every layer, `n` trained keys and values are put before the layer's own:
//! `softmax(Q [P_k; K]ᵀ/√d) [P_v; V]`. With `prefix_projection` they are trained through a network (section 4.3),
//! `P = W₂ tanh(W₁ e + b₁) + b₂`.

use crate::check;
use crate::error::Result;
use crate::methods::config::{Common, PeftConfig, WRAPPED_ONCE, fill};
use crate::methods::virtual_tokens::{EMBEDDINGS, Linear, encoder_embedding, export, has_encoder};
use crate::seam::{
    Attended, AttentionAdapter, AttentionInner, Dims, Heads, Init, Input, Method, MethodConfig, Outline,
    Params, Pass, Place, Prompt, Resolved, Site,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::Tensor;

/// Configuration of prefix tuning; field names and defaults are PEFT's.
///
/// With w = kv_heads · d, h = `encoder_hidden_size`:
///
/// | tensor | shape | name | start |
/// |---|---|---|---|
/// | P | `[num_virtual_tokens, 2 · layers · w]` | `prompt_embeddings` | N(0, 1), or 0 |
/// | with a projection: e | `[num_virtual_tokens, w]` | `encoder.embedding.weight` | N(0, 1) |
/// | W₁, W₂ | `[h, w]`, `[2 · layers · w, h]` | `encoder.transform.{0,2}.weight`, `.bias` | U(±1/√in), or W₂ = b₂ = 0 |
///
/// Viewed as `[n, 2 · layers, kv_heads, d]`, layer l has its keys in slot 2l and its values in slot 2l + 1. They
/// enter attention as they are (no projection, no rotation); real tokens get the positions n, n + 1, ...
///
/// The file has P alone. An adapter from a file trains P further as it is; to keep the projection, keep the tensors of
/// [`Peft::params`](crate::peft::Peft::params) and hand them to [`Peft::add_with`](crate::peft::Peft::add_with).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixTuningConfig {
    /// How many keys and values are put before those of a layer.
    pub num_virtual_tokens: i64,
    /// Whether the keys and values are trained through a network.
    pub prefix_projection: bool,
    /// Width of that network; `None` is the width of all keys of a layer.
    pub encoder_hidden_size: Option<i64>,
    /// How the keys and values start; `None` draws them from N(0, 1). Those of zeros still have their share of attention.
    pub init_weights: Option<PrefixInit>,
    /// Width of all keys of a layer (with grouped heads less than the model's); `None` becomes the model's when the adapter is added.
    pub token_dim: Option<i64>,
    /// Layers of the model; `None` becomes the model's when the adapter is added.
    pub num_layers: Option<i64>,
    /// Key heads of the model; `None` becomes the model's when the adapter is added.
    pub num_attention_heads: Option<i64>,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

/// How a prefix starts where it is not drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixInit {
    /// As zeros.
    Zero,
}

impl Default for PrefixTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            prefix_projection: false,
            encoder_hidden_size: None,
            init_weights: None,
            token_dim: None,
            num_layers: None,
            num_attention_heads: None,
            common: Common::default(),
        }
    }
}

const NAME: &str = "prefix tuning";

impl PeftConfig for PrefixTuningConfig {
    const TYPE: &'static str = "PREFIX_TUNING";
    const DEFAULTS: &'static str = r#"{"num_transformer_submodules": 1}"#;
    const INERT: &'static str = r#"{"num_transformer_submodules": [null]}"#;
    const PREFIX: &'static str = WRAPPED_ONCE;
}

impl PrefixTuningConfig {
    /// Where the keys and values come from, once the sizes are filled in.
    fn source(&self, params: &Params) -> Result<Source> {
        let (n, width) = (self.num_virtual_tokens, self.token_dim.unwrap_or_default());
        let all = self.num_layers.unwrap_or_default().saturating_mul(2).saturating_mul(width);
        let zero = self.init_weights == Some(PrefixInit::Zero);
        if self.prefix_projection && has_encoder(params) {
            let h = self.encoder_hidden_size.unwrap_or(width);
            return Ok(Source::Projected {
                embedding: encoder_embedding(params, n, width)?,
                first: Linear::new(params, "transform.0", (width, h), false)?,
                last: Linear::new(params, "transform.2", (h, all), zero)?,
            });
        }
        let init = if zero { Init::Zeros } else { Init::Normal { std: 1.0 } };
        Ok(Source::Table(params.get_or_init(EMBEDDINGS, &[n, all], init)?))
    }
}

impl MethodConfig for PrefixTuningConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        let d = outline.dims.sizes()?;
        let width = d.kv_heads.saturating_mul(d.head_dim);
        check::positive(NAME, "num_virtual_tokens", self.num_virtual_tokens)?;
        fill(NAME, "token_dim", &mut self.token_dim, width)?;
        fill(NAME, "num_layers", &mut self.num_layers, d.layers)?;
        fill(NAME, "num_attention_heads", &mut self.num_attention_heads, d.kv_heads)?;
        check::positive(NAME, "encoder_hidden_size", *self.encoder_hidden_size.get_or_insert(width))?;
        self.common.resolve(NAME, outline)?;
        Ok(self.resolved(PrefixTuningMethod))
    }
}

/// Prefix tuning in one model.
#[derive(Debug)]
struct PrefixTuningMethod(Arc<PrefixTuningConfig>);

impl Method for PrefixTuningMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attend(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn AttentionAdapter>>> {
        let (Place::Attention, Some(layer)) = (site.place, site.layer) else { return Ok(None) };
        let (heads, d) = (site.dims.sizes()?.kv_heads, site.dims.sizes()?.head_dim);
        Ok(Some(Box::new(Prefix { source: self.0.source(params)?, layer, heads, d })))
    }

    fn prompt(&self, _: &Dims, _: Option<&Tensor>, _: &Params) -> Result<Option<Box<dyn Prompt>>> {
        Ok(Some(Box::new(Shift(self.0.num_virtual_tokens))))
    }

    fn export(&self, params: &Params) -> Result<BTreeMap<String, Tensor>> {
        export(params, || {
            let (source, width) = (self.0.source(params)?, self.0.token_dim.unwrap_or_default());
            let layers = 0..self.0.num_layers.unwrap_or_default();
            let pairs = layers.map(|l| source.layer(l, width)).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::f_cat(&pairs, 1)?)
        })
    }
}

/// What the keys and values of all layers are read from.
#[derive(Debug)]
enum Source {
    /// The keys and values themselves, as one trained table.
    Table(Tensor),
    Projected {
        embedding: Tensor,
        first: Linear,
        last: Linear,
    },
}

impl Source {
    /// Keys and values of one layer, `[n, 2 · width]`. Of W₂ only the layer's rows are used.
    fn layer(&self, layer: i64, width: i64) -> Result<Tensor> {
        let pair = width.saturating_mul(2);
        let start = layer.saturating_mul(pair);
        match self {
            Source::Table(all) => Ok(all.f_narrow(1, start, pair)?),
            Source::Projected { embedding, first, last } => {
                let h = first.forward(embedding)?.f_tanh()?;
                let (weight, bias) =
                    (last.weight.f_narrow(0, start, pair)?, last.bias.f_narrow(0, start, pair)?);
                Ok(h.f_linear(&weight, Some(&bias))?)
            }
        }
    }
}

/// The prefix of one layer.
#[derive(Debug)]
struct Prefix {
    source: Source,
    layer: i64,
    heads: i64,
    d: i64,
}

impl AttentionAdapter for Prefix {
    fn forward(&self, heads: Heads, inner: &AttentionInner<'_>) -> Result<Attended> {
        let pair = self.source.layer(self.layer, self.heads.saturating_mul(self.d))?;
        // [n, 2, kv_heads, d] -> [2, 1, kv_heads, n, d]
        let pair = pair.f_view([-1, 2, self.heads, self.d])?.f_permute([1, 2, 0, 3])?.f_unsqueeze(1)?;
        inner.forward(heads.prepend(&pair.f_get(0)?, &pair.f_get(1)?)?)
    }
}

/// The words' positions start after the prefix.
#[derive(Debug)]
struct Shift(i64);

impl Prompt for Shift {
    fn rewrite(&self, input: Input, _pass: Pass<'_>) -> Result<Input> {
        Ok(Input { position: input.position.saturating_add(self.0), ..input })
    }
}
