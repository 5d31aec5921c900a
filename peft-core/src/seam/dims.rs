//! What is known of a model beyond its sites: its sizes, and what its head is for.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::{Display, Formatter};

/// What methods ask of a model beyond its sites: all of it may be left open (`Dims::default()`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dims {
    /// `model_type` of the Hub's config, or a name for messages.
    pub model_type: String,
    /// What the head is for: adapters for another task are refused. `None` takes all.
    pub task: Option<TaskType>,
    /// Full name of the output layer.
    pub head: Option<String>,
    /// Names of the classes, in the order of their logits; empty where they have none.
    pub classes: Vec<String>,
    /// Sizes of the stack, for the methods that need them: prompts, prefixes, trained tokens.
    pub transformer: Option<Transformer>,
}

/// Sizes of a stack of attention layers over a word embedding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transformer {
    pub layers: i64,
    /// Width of a token between two layers.
    pub hidden: i64,
    /// Heads of the queries.
    pub heads: i64,
    /// Heads of the keys and values.
    pub kv_heads: i64,
    pub head_dim: i64,
    /// Full name of the word embedding's weight, to start prompts from real tokens.
    pub word_embedding: String,
    /// Rows of the word embedding.
    pub vocab: i64,
    /// Tokens that there are positions for, virtual ones included; `None` where positions are computed.
    pub positions: Option<i64>,
    /// Id of padding, where the model itself says it.
    pub pad: Option<i64>,
}

impl Dims {
    /// The model, for messages.
    pub(crate) fn model(&self) -> String {
        match self.model_type.as_str() {
            "" => "this model".to_owned(),
            model_type => format!("a model of type `{model_type}`"),
        }
    }

    /// Whether logits are per token, of the next one.
    pub fn causal(&self) -> bool {
        self.task == Some(TaskType::CausalLm)
    }

    /// Whether the layer `name` is the output layer.
    pub fn is_head(&self, name: &str) -> bool {
        self.head.as_deref() == Some(name)
    }

    /// Full name of the output layer's weight.
    pub fn head_weight(&self) -> Option<String> {
        self.head.as_ref().map(|head| format!("{head}.weight"))
    }

    /// Full name of the word embedding's weight.
    pub fn word_embedding(&self) -> Option<&str> {
        self.transformer.as_ref().map(|t| t.word_embedding.as_str())
    }

    /// The sizes of the stack.
    ///
    /// # Errors
    /// [`Error::Config`], for a model that does not state them.
    pub fn sizes(&self) -> Result<&Transformer> {
        let message = "is not stated: prompts, prefixes, trained tokens, numbers of layers and tokenizers need its sizes";
        self.transformer.as_ref().ok_or_else(|| Error::config(self.model(), "Dims::transformer", message))
    }
}

/// What a model is fine-tuned for, in PEFT's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum TaskType {
    SeqCls,
    #[serde(rename = "SEQ_2_SEQ_LM")]
    Seq2SeqLm,
    CausalLm,
    TokenCls,
    QuestionAns,
    FeatureExtraction,
}

impl Display for TaskType {
    /// What the head does, with PEFT's word for it: `classes of texts (SEQ_CLS)`.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TaskType::SeqCls => "classes of texts (SEQ_CLS)",
            TaskType::Seq2SeqLm => "texts by an encoder and a decoder (SEQ_2_SEQ_LM)",
            TaskType::CausalLm => "the next token (CAUSAL_LM)",
            TaskType::TokenCls => "classes of tokens (TOKEN_CLS)",
            TaskType::QuestionAns => "answers within texts (QUESTION_ANS)",
            TaskType::FeatureExtraction => "features, without a head (FEATURE_EXTRACTION)",
        })
    }
}
