//! A checkpoint, and the directory of a run.

use super::adapter::leaf;
use super::tensors::{Lines, Norms, Tensors};
use anyhow::Result;
use peft_core::io::{read_json, tensors};
use peft_core::train::{self, Checkpoints};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a run keeps its checkpoints in.
pub(super) const CHECKPOINTS: &str = "checkpoints";
/// What a checkpoint says of itself: where it is, and, of a run of `peft train`, how it got there.
const FILES: [&str; 2] = ["run.json", "progress.json"];

/// What a run was at.
#[derive(Debug, Serialize)]
pub(super) struct Checkpoint {
    path: PathBuf,
    /// What is wrong with it; the rest is what could be read all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) torn: Option<String>,
    step: Option<u64>,
    epoch: Option<u64>,
    /// Rows of the epoch that are done, of how many.
    taken: Option<u64>,
    rows: Option<u64>,
    batch: Option<u64>,
    seed: Option<u64>,
    best: Option<Best>,
    seconds: Option<f64>,
    tokens: Option<u64>,
    recipe: Option<Value>,
    adapters: Vec<Part>,
    #[serde(flatten)]
    pub(super) tensors: Tensors,
}

/// The best evaluation so far.
#[derive(Debug, Serialize)]
struct Best {
    step: u64,
    value: f64,
}

/// The tensors of one adapter.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    parameters: i64,
    norms: BTreeMap<String, Norms>,
}

impl Checkpoint {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let torn = train::Checkpoint::open(dir).err().map(|e| e.to_string());
        // Of a torn one there is what there is.
        let [run, progress] = FILES.map(|file| read_json(dir.join(file)).unwrap_or_default());
        let number = |value: &Value, field: &str| value.get(field).and_then(Value::as_u64);
        let names = run.get("adapters").and_then(Value::as_array).cloned().unwrap_or_default();
        let part = |name: &Value| Part {
            name: name.as_str().unwrap_or_default().to_owned(),
            parameters: 0,
            norms: BTreeMap::new(),
        };
        let (mut all, mut adapters) = (Tensors::default(), names.iter().map(part).collect::<Vec<_>>());
        if torn.is_none() {
            tensors::read_each(dir.join("state.safetensors"), |name, t| {
                let norm =
                    all.take(&name, &t).map_err(|e| peft_core::Error::Input(format!("{name}: {e}")))?;
                let of = name.strip_prefix("adapter.").and_then(|rest| rest.split_once(".tensor."));
                let adapter =
                    of.and_then(|(at, key)| Some((adapters.get_mut(at.parse::<usize>().ok()?)?, key)));
                if let (Some((adapter, key)), Some(norm)) = (adapter, norm) {
                    adapter.parameters =
                        adapter.parameters.saturating_add(i64::try_from(t.numel()).unwrap_or(i64::MAX));
                    adapter.norms.entry(leaf(key).to_owned()).or_default().take(norm);
                }
                Ok(())
            })?;
        }
        let best = progress
            .get("best")
            .and_then(|best| Some(Best { step: number(best, "step")?, value: best.get("value")?.as_f64()? }));
        Ok(Self {
            path: dir.to_owned(),
            torn,
            step: number(&run, "step"),
            epoch: number(&run, "epoch"),
            taken: number(&run, "taken"),
            rows: number(&run, "rows"),
            batch: number(&run, "batch"),
            seed: number(&run, "seed"),
            best,
            seconds: progress.get("seconds").and_then(Value::as_f64),
            tokens: number(&progress, "tokens"),
            recipe: progress.get("recipe").filter(|recipe| !recipe.is_null()).cloned(),
            adapters,
            tensors: all,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.add("torn", self.torn.as_deref().unwrap_or_default());
        if let (Some(step), Some(epoch), Some(taken), Some(rows)) =
            (self.step, self.epoch, self.taken, self.rows)
        {
            lines.add(
                "step",
                &format!("{step}, in epoch {} after {taken} of {rows} rows", epoch.saturating_add(1)),
            );
        }
        if let (Some(batch), Some(seed)) = (self.batch, self.seed) {
            lines.add("run", &format!("batches of {batch}, seed {seed}"));
        }
        if let Some(Best { step, value }) = &self.best {
            lines.add("best", &format!("{value:.4} at step {step}"));
        }
        if let (Some(seconds), Some(tokens)) = (self.seconds, self.tokens) {
            lines.add(
                "took",
                &format!("{seconds:.0} s for {} tokens", peft_core::report::commas(tokens as i64)),
            );
        }
        for Part { name, parameters, norms } in &self.adapters {
            lines.add("adapter", &format!("{name}: {} parameters", peft_core::report::commas(*parameters)));
            for (leaf, Norms { count, mean, max }) in norms {
                lines
                    .add("norm", &format!("{leaf}: {count} tensors, {mean:.4} on average, {max:.4} at most"));
            }
        }
        if self.torn.is_none() {
            lines.add("state", &self.tensors.text());
        }
        for (field, value) in self.recipe.iter().filter_map(Value::as_object).flatten() {
            if !value.is_null() {
                lines.add("recipe", &format!("{field} = {value}"));
            }
        }
        let what = if self.torn.is_some() { "a torn checkpoint" } else { "a checkpoint, whole" };
        lines.under(&format!("{}: {what}", self.path.display()))
    }
}

/// The directory of a run.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    path: PathBuf,
    checkpoints: Vec<Kept>,
    /// The step of the best evaluation.
    best: Option<u64>,
}

/// One of a run's checkpoints.
#[derive(Debug, Serialize)]
struct Kept {
    step: u64,
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    torn: Option<String>,
}

impl Run {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let all = Checkpoints::new(dir.join(CHECKPOINTS)).all()?;
        let checkpoints: Vec<Kept> = all
            .into_iter()
            .map(|(step, path)| Kept {
                step,
                torn: train::Checkpoint::open(&path).err().map(|e| e.to_string()),
                path,
            })
            .collect();
        let newest = checkpoints.iter().rev().find(|kept| kept.torn.is_none());
        let [_, progress] = FILES;
        let progress = newest.map(|kept| read_json(kept.path.join(progress)).unwrap_or_default());
        let best = progress.and_then(|json| json.pointer("/best/step")?.as_u64());
        Ok(Self { path: dir.to_owned(), checkpoints, best })
    }

    pub(super) fn torn(&self) -> bool {
        self.checkpoints.iter().any(|kept| kept.torn.is_some())
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        for Kept { step, path, torn } in &self.checkpoints {
            let best = if self.best == Some(*step) { ", the best" } else { "" };
            let state = torn.as_ref().map_or_else(|| "whole".into(), |why| format!("torn: {why}"));
            lines.add(&format!("step {step}"), &format!("{}, {state}{best}", path.display()));
        }
        let count = self.checkpoints.len();
        lines.under(&format!("{}: a run with {count} checkpoints", self.path.display()))
    }
}
