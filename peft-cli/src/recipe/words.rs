//! The words that some fields of a recipe choose from.

use clap::ValueEnum;
use peft_core::tch;
use peft_core::text;
use peft_core::train::Order;
use serde::{Deserialize, Serialize};

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// The next token
    Causal,
    /// Classes of texts
    Classes,
    /// A number for a text
    Regression,
}

impl Kind {
    /// In words.
    pub fn learned(self) -> &'static str {
        match self {
            Self::Causal => "next tokens",
            Self::Classes => "classes of texts",
            Self::Regression => "numbers of texts",
        }
    }

    /// What an evaluation measures.
    pub fn metrics(self) -> &'static [&'static str] {
        match self {
            Self::Causal => &["loss", "perplexity", "token_accuracy"],
            Self::Classes => &["loss", "accuracy", "macro_f1"],
            Self::Regression => &["loss", "mse", "mae", "pearson"],
        }
    }
}

/// What of a chat is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Learn {
    /// What the assistant says
    Answers,
    /// The last thing that the assistant says
    Last,
    /// All of it
    All,
}

impl From<Learn> for text::Learn {
    fn from(learn: Learn) -> Self {
        match learn {
            Learn::Answers => text::Learn::Answers,
            Learn::Last => text::Learn::Last,
            Learn::All => text::Learn::All,
        }
    }
}

/// How it is optimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Optimizer {
    /// AdamW
    Adamw,
    /// LoRA+: B learns faster than A
    LoraPlus,
    /// LoRA-FA: A is frozen
    LoraFa,
}

/// How the learning rate goes on behind the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Shape {
    /// In a line to 0
    Linear,
    /// Along half a cosine to 0
    Cosine,
    /// As it is
    Constant,
}

/// In which order rows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Rows {
    /// At random, another order each epoch
    Shuffled,
    /// At random, with rows of like length in one batch
    ByLength,
    /// As the file has them
    AsIs,
}

impl From<Rows> for Order {
    fn from(rows: Rows) -> Self {
        match rows {
            Rows::Shuffled => Order::Shuffled,
            Rows::ByLength => Order::ByLength,
            Rows::AsIs => Order::AsIs,
        }
    }
}

/// The dtype of the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Dtype {
    /// As the file has it
    Stored,
    /// 32 bits
    Float32,
    /// 16 bits, with the range of 32
    Bfloat16,
    /// 16 bits
    Float16,
}

impl Dtype {
    /// libtorch's; `None` for the file's own.
    pub fn kind(self) -> Option<tch::Kind> {
        match self {
            Self::Stored => None,
            Self::Float32 => Some(tch::Kind::Float),
            Self::Bfloat16 => Some(tch::Kind::BFloat16),
            Self::Float16 => Some(tch::Kind::Half),
        }
    }
}
