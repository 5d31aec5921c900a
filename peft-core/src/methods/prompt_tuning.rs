//! Prompt tuning. Lester et al. 2021, <https://arxiv.org/abs/2104.08691>, section 2.
//!
//! `n` trained vectors are put before the word embeddings: `[P; E(x)]`. Everything else is frozen.

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig, WRAPPED_ONCE, fill};
use crate::methods::virtual_tokens::{EMBEDDINGS, SoftPrompt};
use crate::seam::{Dims, Init, Method, MethodConfig, Outline, Params, Prompt, Resolved};
use crate::text::tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;
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
    /// How many vectors the prompt has.
    pub num_virtual_tokens: i64,
    /// How the prompt starts.
    pub prompt_tuning_init: PromptInit,
    /// The words to start from, with [`PromptInit::Text`] alone.
    pub prompt_tuning_init_text: Option<String>,
    /// A directory with the tokenizer of those words. It is not read when an adapter comes from a file.
    pub tokenizer_name_or_path: Option<String>,
    /// Arguments of Python's tokenizers. They are kept, and refused where a tokenizer is needed.
    pub tokenizer_kwargs: Option<Map<String, Value>>,
    /// Width of the model; `None` becomes the model's when the adapter is added.
    pub token_dim: Option<i64>,
    /// Layers of the model; `None` becomes the model's when the adapter is added.
    pub num_layers: Option<i64>,
    /// Attention heads of the model; `None` becomes the model's when the adapter is added.
    pub num_attention_heads: Option<i64>,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

/// How the prompt of prompt tuning starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptInit {
    /// N(0, 1).
    Random,
    /// Word embeddings of uniformly drawn tokens.
    SampleVocab,
    /// Word embeddings of `prompt_tuning_init_text`, special tokens included, cut or repeated to the prompt's length.
    Text,
}

impl Default for PromptTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            prompt_tuning_init: PromptInit::Random,
            prompt_tuning_init_text: None,
            tokenizer_name_or_path: None,
            tokenizer_kwargs: None,
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
    const DEFAULTS: &'static str = r#"{"num_transformer_submodules": 1}"#;
    const INERT: &'static str = r#"{"num_transformer_submodules": [null]}"#;
    const PREFIX: &'static str = WRAPPED_ONCE;
}

impl PromptTuningConfig {
    /// The text and the tokenizer's directory, which `TEXT` needs.
    fn text(&self) -> Result<(&str, &Path)> {
        let needed = |field: &str| Error::config(NAME, field, "is needed where prompt_tuning_init is TEXT");
        let dir = self.tokenizer_name_or_path.as_deref().filter(|dir| !dir.is_empty());
        let dir = dir.ok_or_else(|| needed("tokenizer_name_or_path"))?;
        let text = self.prompt_tuning_init_text.as_deref();
        Ok((text.ok_or_else(|| needed("prompt_tuning_init_text"))?, Path::new(dir)))
    }

    /// Whether there are arguments for a tokenizer.
    fn has_kwargs(&self) -> bool {
        self.tokenizer_kwargs.as_ref().is_some_and(|kwargs| !kwargs.is_empty())
    }

    /// Tokens of the text, `num_virtual_tokens` of them.
    fn text_ids(&self) -> Result<Vec<i64>> {
        let (text, dir) = self.text()?;
        if self.has_kwargs() {
            return Err(Error::config(NAME, "tokenizer_kwargs", "are not supported"));
        }
        if !tokenizer::exists(dir) {
            let message = format!("`{}` should be a local directory with a tokenizer.json", dir.display());
            return Err(Error::config(NAME, "tokenizer_name_or_path", message));
        }
        let tokenizer::Opened { tokenizer, path, alphabet } = tokenizer::open(dir)?;
        alphabet.check(text, &path)?;
        let encoding = tokenizer.encode(text, true).map_err(|e| Error::format(&path, e))?;
        if encoding.is_empty() {
            return Err(Error::config(NAME, "prompt_tuning_init_text", "has no tokens"));
        }
        let n = usize::try_from(self.num_virtual_tokens).unwrap_or_default();
        Ok(encoding.get_ids().iter().cycle().take(n).map(|id| i64::from(*id)).collect())
    }

    /// A fresh prompt. As in PEFT, N(0, 1) is drawn in any case.
    fn start(&self, dims: &Dims, words: Option<&Tensor>, device: Device) -> Result<Tensor> {
        let sizes = dims.sizes()?;
        let n = self.num_virtual_tokens;
        let normal = Init::Normal { std: 1.0 }.tensor(&[n, sizes.hidden], device)?;
        if self.prompt_tuning_init == PromptInit::Random {
            return Ok(normal);
        }
        let words = words.ok_or_else(|| Error::Missing {
            place: "the base".into(),
            name: sizes.word_embedding.clone(),
            expected: vec![sizes.vocab, sizes.hidden],
            hint: String::new(),
        })?;
        let ids = match self.prompt_tuning_init {
            PromptInit::Text => {
                let ids = self.text_ids()?;
                if let Some(id) = ids.iter().find(|id| **id >= sizes.vocab) {
                    let message =
                        format!("its token {id} is beyond the model's vocabulary of {}", sizes.vocab);
                    return Err(Error::config(NAME, "tokenizer_name_or_path", message));
                }
                Tensor::f_from_slice(&ids)?
            }
            _ => Tensor::f_randint(sizes.vocab, [n], (Kind::Int64, Device::Cpu))?,
        };
        Ok(words.f_detach()?.f_index_select(0, &ids.f_to(words.device())?)?.f_to_kind(Kind::Float)?)
    }
}

impl MethodConfig for PromptTuningConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        check::positive(NAME, "num_virtual_tokens", self.num_virtual_tokens)?;
        match self.prompt_tuning_init {
            PromptInit::Text => drop(self.text()?),
            _ if self.has_kwargs() => {
                return Err(Error::config(NAME, "tokenizer_kwargs", "are for prompt_tuning_init TEXT"));
            }
            _ => {}
        }
        fill(NAME, "token_dim", &mut self.token_dim, outline.dims.sizes()?.hidden)?;
        fill(NAME, "num_layers", &mut self.num_layers, outline.dims.sizes()?.layers)?;
        fill(NAME, "num_attention_heads", &mut self.num_attention_heads, outline.dims.sizes()?.heads)?;
        self.common.resolve(NAME, outline)?;
        Ok(self.resolved(PromptTuningMethod))
    }
}

/// Prompt tuning in one model.
#[derive(Debug)]
struct PromptTuningMethod(Arc<PromptTuningConfig>);

impl Method for PromptTuningMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prompt(
        &self,
        dims: &Dims,
        words: Option<&Tensor>,
        params: &Params,
    ) -> Result<Option<Box<dyn Prompt>>> {
        let n = self.0.num_virtual_tokens;
        let tokens = params.get_or_else(EMBEDDINGS, &[n, dims.sizes()?.hidden], || {
            self.0.start(dims, words, params.device())
        })?;
        Ok(Some(Box::new(SoftPrompt { n, tokens: Box::new(tokens) })))
    }
}
