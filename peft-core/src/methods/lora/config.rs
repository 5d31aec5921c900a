//! LoRA's configuration.

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, whole};
use crate::methods::lora::bias::Bias;
use crate::methods::lora::names::NAME;
use crate::methods::lora::start::InitLora;
use crate::methods::ranks::SiteRank;
use crate::target::{Layers, Patterns, Targets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Configuration of LoRA; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | A | `[r, in]` | `<site>.lora_A.weight` | U(±1/√in); N(0, 1/r²) for `"gaussian"`; [`InitLora`] |
/// | B | `[out, r]` | `<site>.lora_B.weight` | 0; U(±1/√r) for `false`; [`InitLora`] |
/// | b_B | `[out]` | `<site>.lora_B.bias` | 0; U(±1/√r) for `false` |
/// | A of an embedding | `[r, vocab]` | `<site>.lora_embedding_A` | 0; N(0, 1) for `false` |
/// | B of an embedding | `[dim, r]` | `<site>.lora_embedding_B` | N(0, 1) |
/// | m of DoRA | `[out]` or `[dim]` | `<site>.lora_magnitude_vector` | ‖W + s·BA‖ |
/// | rows | `[tokens, dim]` | `<site>.token_adapter.trainable_tokens_delta` | E's |
/// | biases of the base | `[out]` | `<site>.base_layer.bias`, or their own names | the base's |
/// | W of `embed_tokens`, `lm_head` | `[vocab, dim]` | `<site>.base_layer.weight`, not trained | the base's |
///
/// The last is PEFT's: a file has the base's weight too where one of the two is a target by exactly that name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank of the two factors.
    pub r: i64,
    /// Numerator of the scale, which is `lora_alpha/r`.
    #[serde(serialize_with = "whole")]
    pub lora_alpha: f64,
    /// Ranks of some sites that differ from `r`; see [`Patterns`].
    pub rank_pattern: Patterns,
    /// Numerators of the scale of some sites; see [`Patterns`].
    pub alpha_pattern: Patterns,
    /// Probability that an input of A is dropped in training. The base's own path is not touched.
    pub lora_dropout: f64,
    /// Scale by `lora_alpha/√r` instead of `lora_alpha/r`.
    pub use_rslora: bool,
    /// Whether a magnitude is trained beside the direction: DoRA.
    pub use_dora: bool,
    /// How A and B start.
    pub init_lora_weights: InitLora,
    /// Whether B has a bias of its own. Merging needs a base bias to add it to.
    pub lora_bias: bool,
    /// Which biases of the base are trained.
    pub bias: Bias,
    /// Linear layers and embeddings to adapt.
    #[serde(flatten)]
    pub targets: Targets,
    /// Only some layers of the model.
    #[serde(flatten)]
    pub layers: Layers,
    /// Weights to adapt, by the ends of their full names: as the linear layers that they belong to.
    pub target_parameters: Option<Vec<String>>,
    /// Rows of embeddings to train.
    pub trainable_token_indices: Option<TokenIndices>,
    /// What is trained of the word embedding, by a target or by `modules_to_save`, is trained of a head that is tied to it
    /// as well, and the two stay tied. Without it they part.
    pub ensure_weight_tying: bool,
    /// Whether the adapted layers store their weights as `[in, out]`. Written for PEFT; what is read is not used.
    pub fan_in_fan_out: bool,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

/// Tokens of the word embedding, or of several layers by the ends of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a list of tokens, or lists by layer")]
pub enum TokenIndices {
    /// Tokens of the word embedding.
    Words(Vec<i64>),
    /// Tokens of several layers, by the ends of their names.
    Layers(BTreeMap<String, Vec<i64>>),
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            lora_dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            init_lora_weights: InitLora::Flag(true),
            lora_bias: false,
            bias: Bias::None,
            targets: Targets::default(),
            layers: Layers::default(),
            target_parameters: None,
            trainable_token_indices: None,
            ensure_weight_tying: false,
            fan_in_fan_out: false,
            common: Common::default(),
        }
    }
}

impl LoraConfig {
    /// `alpha/r`, or `alpha/√r` for rsLoRA.
    pub fn scaling(&self) -> f64 {
        SiteRank::new(self.r, self.lora_alpha, self.use_rslora).scaling
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |field: &str, message: String| Err(Error::config(NAME, field, message));
        check::share(NAME, "lora_dropout", self.lora_dropout)?;
        if self.lora_bias && self.use_dora {
            return wrong("lora_bias", "has no meaning with use_dora".into());
        }
        if self.lora_bias && !matches!(self.init_lora_weights, InitLora::Flag(_)) {
            return wrong("lora_bias", "needs init_lora_weights true or false".into());
        }
        if self.parameters().is_some() {
            for (field, used) in [
                ("lora_dropout", self.lora_dropout > 0.0),
                ("lora_bias", self.lora_bias),
                ("use_dora", self.use_dora),
            ] {
                if used {
                    return wrong(field, "has no meaning with target_parameters".into());
                }
            }
        }
        Ok(())
    }

    /// `target_parameters`, if it names any.
    pub(super) fn parameters(&self) -> Option<&[String]> {
        self.target_parameters.as_deref().filter(|p| !p.is_empty())
    }
}
