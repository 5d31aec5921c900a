//! What passes between driver and worker, and what is written to the JSON-lines file.

use crate::text::Source;
use peft_core::device::Threads;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// One thing for a worker to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub seed: i64,
    /// As on the command line.
    pub device: String,
    pub threads: Threads,
    pub work: Work,
}

/// What a job is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// Pre-train the synthetic task's base for its first `steps` steps and write it.
    Pretrain { base: PathBuf, steps: u64 },
    /// Fine-tune with one method.
    Case { method: String, data: Data, steps: Option<u64>, batch: Option<usize>, lr: Option<f64> },
}

/// What is trained on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Data {
    /// The synthetic task over a pre-trained base, or over a fresh model if there is none.
    Synthetic { base: Option<PathBuf> },
    /// Text with a Hub model.
    Text(Source),
}

/// A worker's words on standard output, one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// Steps done, of so many.
    Progress(u64, u64),
    /// Something that the user should know and that is no failure.
    Note(String),
    /// The job is done.
    Ended(Outcome),
    /// The job failed; why.
    Failed(String),
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The base is written.
    Pretrained(Base),
    Trained(Box<Figures>),
}

/// A pre-trained base of the synthetic task, before anything is adapted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// All its parameters.
    pub parameters: i64,
    /// Accuracy on held-out rows of its own two tasks.
    pub own: f64,
    /// Accuracy on the test rows of the task that it was never trained on.
    pub unadapted: f64,
}

/// Figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub trainable: i64,
    pub all: i64,
    pub steps: u64,
    /// Median of a step: batch, forward, backward, update.
    pub step_ms: f64,
    /// Tokens that are not padding, over the time of all steps.
    pub tokens_per_s: f64,
    /// Most bytes that tensors held during training, the base included.
    pub peak_bytes: i64,
    /// Size of adapter_model.safetensors.
    pub file_bytes: u64,
    /// Mean over the last tenth of the steps.
    pub train_loss: f64,
    /// Mean over each of at most fifty equal parts of the run, and the step that the part ends with.
    pub losses: Vec<(u64, f64)>,
    /// Share of test rows that are right.
    pub test_accuracy: f64,
    /// Largest difference of the test logits after merging, relative to the largest logit; absent where the method
    /// cannot be merged.
    pub merge_error: Option<f64>,
    /// The method's adapter_config.json.
    pub config: Value,
    pub lr: f64,
}

/// One line of the JSON file.
#[derive(Debug, Clone, Serialize)]
pub struct Record<'a> {
    pub method: &'a str,
    pub seed: i64,
    pub device: &'a str,
    pub task: &'a Value,
    pub versions: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<&'a Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// What the numbers were made with.
pub fn versions() -> Value {
    serde_json::json!({ "peft-bench": env!("CARGO_PKG_VERSION"), "tch": "0.24.0", "libtorch": "2.11.0" })
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        let tch = super::versions()["tch"].as_str().unwrap_or_default().to_owned();
        assert!(lock.contains(&format!("name = \"tch\"\nversion = \"{tch}\"")), "{tch}");
        let libtorch = super::versions()["libtorch"].as_str().unwrap_or_default().to_owned();
        assert!(
            include_str!("../../scripts/libtorch.sh").contains(&format!("version={libtorch}\n")),
            "{libtorch}"
        );
    }
}
