//! How far a run is, beside what the library's checkpoint holds.

use crate::recipe::{Recipe, filled};
use crate::training::data::Inputs;
use anyhow::{Context, Result, bail};
use peft_core::train::{Checkpoint, Evaluation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the file in a checkpoint.
pub const FILE: &str = "progress.json";

/// What a run knows of itself at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What the files were.
    pub inputs: Inputs,
    /// The recipe as it was resolved from file and flags.
    pub recipe: Recipe,
    /// The learning rate that it is trained with at this step.
    #[serde(default)]
    pub lr: Option<f64>,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub worse: u64,
    /// Time that steps and evaluations took.
    pub seconds: f64,
    pub tokens: u64,
    /// A signal came before the evaluation of this step was done: it is due.
    #[serde(default)]
    pub due: bool,
    /// The most bytes that a step held.
    pub memory: i64,
}

/// The best evaluation of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    pub value: f64,
}

/// Fields of a recipe that make another run: one that is resumed keeps them.
const KEPT: [&str; 22] = [
    "method",
    "set",
    "eval_share",
    "length",
    "pack",
    "learn",
    "labels",
    "new_head",
    "optimizer",
    "weight_decay",
    "beta1",
    "beta2",
    "eps",
    "lora_plus_ratio",
    "schedule",
    "warmup",
    "clip",
    "batch",
    "order",
    "metric",
    "dtype",
    "nf4",
];

impl Progress {
    pub fn new(inputs: Inputs, recipe: Recipe, lr: f64) -> Self {
        Self {
            lr: Some(lr),
            inputs,
            recipe,
            best: None,
            worse: 0,
            seconds: 0.0,
            tokens: 0,
            due: false,
            memory: 0,
        }
    }

    /// Where the run was that has saved this checkpoint, for a recipe that goes on with it.
    ///
    /// # Errors
    /// Another training than the one that was saved.
    pub fn after(self, checkpoint: &Checkpoint) -> Result<Self> {
        let path = checkpoint.path.join(FILE);
        let old: Self =
            serde_json::from_slice(&checkpoint.read(FILE)?).with_context(|| path.display().to_string())?;
        old.check(&self.inputs, &self.recipe).with_context(|| checkpoint.path.display().to_string())?;
        Ok(Self { recipe: self.recipe, ..old })
    }

    fn check(&self, inputs: &Inputs, recipe: &Recipe) -> Result<()> {
        let names = self.inputs.keys().chain(inputs.keys());
        for name in names {
            if self.inputs.get(name) != inputs.get(name) {
                bail!(
                    "the {name} is not what the run was begun with; put it back, or begin anew with --overwrite"
                );
            }
        }
        let (Value::Object(old), Value::Object(new)) =
            (serde_json::to_value(filled(&self.recipe)?)?, serde_json::to_value(filled(recipe)?)?)
        else {
            return Ok(());
        };
        for field in KEPT {
            let [old, new] = [&old, &new].map(|all| all.get(field).unwrap_or(&Value::Null));
            if old != new {
                bail!(
                    "{field}: is {new}, and the run was begun with {old}; say that, or begin anew with --overwrite"
                );
            }
        }
        Ok(())
    }

    /// Takes up an evaluation; whether it is the best so far.
    pub fn judge(&mut self, step: u64, value: f64, more_is_better: bool) -> bool {
        let better = |best: Best| if more_is_better { value > best.value } else { value < best.value };
        if self.best.is_none_or(better) && !value.is_nan() {
            (self.best, self.worse) = (Some(Best { step, value }), 0);
            return true;
        }
        self.worse += 1;
        false
    }
}

/// The figure of an evaluation that a recipe goes by, and whether more of it is better.
pub fn figure(evaluation: &Evaluation, metric: &str) -> Result<(f64, bool)> {
    let more = ["token_accuracy", "accuracy", "macro_f1", "pearson"].contains(&metric);
    match metric {
        "loss" => Ok((evaluation.loss, false)),
        other => match evaluation.metrics.get(other) {
            Some(value) => Ok((*value, more)),
            None => {
                let known: Vec<_> = evaluation.metrics.keys().copied().collect();
                bail!("metric: `{other}` is not measured here; there are loss, {}", known.join(", "))
            }
        },
    }
}
