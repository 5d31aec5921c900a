//! Sizes of a model, and what its head is for.

use serde::{Deserialize, Serialize};
use std::fmt::{Display, Formatter};

/// Sizes of a model, as methods need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dims {
    /// `model_type` of the Hub's config.
    pub model_type: String,
    pub layers: i64,
    pub hidden: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    /// Name of the word embedding, to start prompts from real tokens.
    pub word_embedding: String,
    pub vocab: i64,
    /// Tokens that there are positions for, virtual ones included; `None` where positions are computed.
    pub positions: Option<i64>,
    /// Name of the output layer.
    pub head: String,
    /// A token sees itself and those before it alone; logits are per token.
    pub causal: bool,
}

impl Dims {
    /// What the model's head is for.
    pub fn task(&self) -> TaskType {
        match (self.causal, self.head.is_empty()) {
            (true, _) => TaskType::CausalLm,
            (false, true) => TaskType::FeatureExtraction,
            (false, false) => TaskType::SeqCls,
        }
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
