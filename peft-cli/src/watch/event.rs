//! What happens while a model is trained.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Something that happened at a step: a line of `metrics.jsonl`. The step is that of the update, counted from 1; before the
/// first it is 0. A number that is none (NaN, infinite) is `null` in the file and NaN when it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An update of what is trained.
    Step(Step),
    /// The model was evaluated on rows that it is not trained on.
    Eval {
        /// After which update.
        step: u64,
        /// How often the training rows have been seen, with fractions.
        epoch: f64,
        /// Mean loss.
        #[serde(deserialize_with = "number")]
        loss: f64,
        /// What else was measured, by name: `accuracy`, `f1`, `perplexity`, `mse`.
        #[serde(default, deserialize_with = "numbers")]
        figures: BTreeMap<String, f64>,
        /// How long it took.
        seconds: f64,
    },
    /// What the model makes of a prompt.
    Sample {
        /// After which update.
        step: u64,
        /// What was given.
        prompt: String,
        /// What the model without the adapter makes of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
        /// What it makes of it now.
        text: String,
    },
    /// Anything else that whoever reads of the run later should know: a batch that was halved, a checkpoint.
    Note {
        /// After which update.
        step: u64,
        /// What happened.
        text: String,
    },
}

/// An update of what is trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which update, counted from 1.
    pub step: u64,
    /// How often the training rows have been seen after it, with fractions.
    pub epoch: f64,
    /// The loss before it.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Its learning rate.
    pub lr: f64,
    /// Norm of the gradients before they were clipped.
    #[serde(default, deserialize_with = "perhaps", skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Tokens that the model saw, padding left out.
    pub tokens: u64,
    /// Those of them that it was to predict; rows, for a classifier.
    pub learned: u64,
    /// How long it took.
    pub seconds: f64,
    /// The most bytes of memory in use so far, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

impl Step {
    /// Tokens a second, where any time was measured.
    pub fn speed(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.tokens as f64 / self.seconds)
    }
}

impl Event {
    /// The update after which it happened.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(Step { step, .. })
            | Self::Eval { step, .. }
            | Self::Sample { step, .. }
            | Self::Note { step, .. } => *step,
        }
    }

    /// What of it is numbers, by the names that TensorBoard groups them by: `train/loss`, `eval/accuracy`.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        match self {
            Self::Step(step) => {
                let all = [
                    ("loss", Some(step.loss)),
                    ("lr", Some(step.lr)),
                    ("epoch", Some(step.epoch)),
                    ("grad_norm", step.grad_norm),
                    ("tokens_per_second", step.speed()),
                    ("memory_bytes", step.memory.map(|bytes| bytes as f64)),
                ];
                all.into_iter().filter_map(|(name, value)| Some((format!("train/{name}"), value?))).collect()
            }
            Self::Eval { loss, figures, .. } => {
                let others = figures.iter().map(|(name, value)| (format!("eval/{name}"), *value));
                std::iter::once(("eval/loss".to_owned(), *loss)).chain(others).collect()
            }
            Self::Sample { .. } | Self::Note { .. } => Vec::new(),
        }
    }
}

/// JSON has no NaN: what is written for it is `null`.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

fn perhaps<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    number(from).map(Some)
}

fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let all: BTreeMap<String, Option<f64>> = Deserialize::deserialize(from)?;
    Ok(all.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}
