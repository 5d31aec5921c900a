//! Prompt tuning. Lester et al. 2021, <https://arxiv.org/abs/2104.08691>, section 2.
//!
//! `n` trained vectors are put before the word embeddings: `[P; E(x)]`. Everything else is frozen.

use super::config::{Common, FileForm, PeftConfig, WRAPPED_ONCE, check_tokens, fill};
use super::Method;
use crate::attention::open_keys;
use crate::model::{Dims, Input, Prompt};
use crate::site::Outline;
use crate::{Error, Init, Params, Pass, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Configuration of prompt tuning; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | P | `[num_virtual_tokens, hidden]` | `prompt_embeddings` | N(0, 1), or rows of the word embedding |
///
/// A BERT-like head reads position 0, which is then the first virtual token and not `[CLS]`, as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptTuningConfig {
    pub num_virtual_tokens: i64,
    pub prompt_tuning_init: PromptInit,
    /// Sizes of the model, filled in when the adapter is added.
    pub token_dim: Option<i64>,
    pub num_layers: Option<i64>,
    pub num_attention_heads: Option<i64>,
    #[serde(flatten)]
    pub common: Common,
}

/// How the prompt starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptInit {
    /// N(0, 1).
    Random,
    /// Word embeddings of uniformly drawn tokens.
    SampleVocab,
}

impl Default for PromptTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            prompt_tuning_init: PromptInit::Random,
            token_dim: None,
            num_layers: None,
            num_attention_heads: None,
            common: Common::default(),
        }
    }
}

const NAME: &str = "prompt tuning";

impl PeftConfig for PromptTuningConfig {
    const TYPE: &'static str = "PROMPT_TUNING";
    const DEFAULTS: &'static str = r#"{
        "num_transformer_submodules": 1, "prompt_tuning_init_text": null, "tokenizer_kwargs": null,
        "tokenizer_name_or_path": null
    }"#;
    const PREFIX: &'static str = WRAPPED_ONCE;
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Method for PromptTuningConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        check_tokens(NAME, self.num_virtual_tokens)?;
        fill(NAME, "token_dim", &mut self.token_dim, outline.dims.hidden)?;
        fill(NAME, "num_layers", &mut self.num_layers, outline.dims.layers)?;
        fill(NAME, "num_attention_heads", &mut self.num_attention_heads, outline.dims.heads)?;
        self.common.prepare(NAME, outline)
    }

    fn prompt(&self, dims: &Dims, words: Option<&Tensor>, params: &Params) -> Result<Option<Box<dyn Prompt>>> {
        let shape = [self.num_virtual_tokens, dims.hidden];
        let embeddings = params.get_or_else("prompt_embeddings", &shape, || match self.prompt_tuning_init {
            PromptInit::Random => Init::Normal { std: 1.0 }.tensor(&shape, params.device()),
            PromptInit::SampleVocab => {
                let words = words.ok_or_else(|| Error::Missing {
                    place: "the base".into(),
                    name: dims.word_embedding.clone(),
                    expected: vec![dims.vocab, dims.hidden],
                    hint: String::new(),
                })?;
                let ids = Tensor::f_randint(dims.vocab, [self.num_virtual_tokens], (Kind::Int64, Device::Cpu))?;
                Ok(words.f_detach()?.f_index_select(0, &ids.f_to(words.device())?)?.f_to_kind(Kind::Float)?)
            }
        })?;
        Ok(Some(Box::new(SoftPrompt { embeddings })))
    }

    fn file(&self) -> Option<&dyn FileForm> {
        Some(self)
    }
}

/// `[n, hidden]` vectors before the words.
#[derive(Debug)]
struct SoftPrompt {
    embeddings: Tensor,
}

impl Prompt for SoftPrompt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rewrite(&self, input: Input, pass: Pass<'_>) -> Result<Input> {
        let (batch, _, hidden) = input.embeds.size3()?;
        let n = self.embeddings.size2()?.0;
        let mask = input.mask.map(|m| open_keys(&m, n)).transpose()?;
        if pass.cache.is_some_and(|cache| !cache.is_empty()) {
            return Ok(Input { mask, ..input }); // it is in the cache already
        }
        let prompt = self.embeddings.f_to_kind(input.embeds.kind())?.f_unsqueeze(0)?;
        let prompt = prompt.f_expand([batch, n, hidden], false)?;
        Ok(Input {
            embeds: Tensor::f_cat(&[&prompt, &input.embeds], 1)?,
            mask,
            virtual_tokens: input.virtual_tokens.saturating_add(n),
            ..input
        })
    }
}
