//! An adapter: its configuration, its tensors, and what it changes of a base.

use super::Inspect;
use super::tensors::{Lines, Norms, Tensors, metadata, said};
use crate::common::{Given, adapter_name};
use crate::output::Output;
use crate::source::Source;
use anyhow::Result;
use peft_core::io::adapter;
use peft_core::methods::catalogue::Entry;
use peft_core::tch::{Device, Kind, Tensor};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize)]
pub(super) struct Adapter {
    path: PathBuf,
    method: String,
    peft_type: String,
    base_model: Option<String>,
    made_by: Option<String>,
    task: Option<String>,
    classes: Vec<String>,
    /// Fields that are not as the method has them by default.
    set: Map<String, Value>,
    /// Fields that the method does not know.
    unknown: Map<String, Value>,
    /// Norms of the tensors by the last part of their names: how many, mean and largest.
    norms: BTreeMap<String, Norms>,
    /// `‖ΔW‖/‖W‖` of the layers that it changes; with --base.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change>,
    /// What the safetensors file says of itself.
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) tensors: Tensors,
}

#[derive(Debug, Serialize)]
struct Change {
    name: String,
    relative: f64,
    /// `exp` of the entropy of the squared singular values' shares: how many directions there are.
    effective_rank: Option<f64>,
}

/// Fields that every configuration has, and no method explains.
const COMMON: &[&str] = &[
    "peft_type",
    "peft_version",
    "auto_mapping",
    "inference_mode",
    "revision",
    "base_model_name_or_path",
    "task_type",
];

impl Adapter {
    pub(super) fn read(dir: &Path, inspect: &Inspect, output: &Output) -> Result<Self> {
        let (files, path) = adapter::read(dir)?;
        let fields = files.config.as_object().cloned().unwrap_or_default();
        let text = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_owned);
        let (mut all, mut norms) = (Tensors::default(), BTreeMap::<String, Norms>::new());
        for (name, t) in &files.tensors {
            let Some(norm) = all.take(name, t)? else { continue };
            norms.entry(leaf(name).to_owned()).or_default().take(norm);
        }
        let entry = Entry::of(&fields);
        let defaults = entry.map(Entry::fields).transpose()?.unwrap_or_default();
        let foreign = |field: &String, value: &Value| {
            let alone = Map::from_iter([(field.clone(), value.clone())]);
            entry.is_some_and(|entry| entry.json(alone).is_err())
        };
        let (mut set, mut unknown) = (Map::new(), Map::new());
        for (field, value) in fields.iter().filter(|(field, _)| !COMMON.contains(&field.as_str())) {
            match defaults.get(field) {
                None if foreign(field, value) => unknown.insert(field.clone(), value.clone()),
                Some(default)
                    if default != value
                        && (default.as_f64().is_none() || default.as_f64() != value.as_f64()) =>
                {
                    set.insert(field.clone(), value.clone())
                }
                _ => None,
            };
        }
        let base = inspect.base.as_ref();
        let changes = base.map(|base| changes(base, dir, inspect, output)).transpose()?;
        Ok(Self {
            path: dir.to_owned(),
            method: entry.map_or("unknown", |e| e.title).to_owned(),
            peft_type: text("peft_type").unwrap_or_default(),
            base_model: text("base_model_name_or_path"),
            made_by: text("peft_version")
                .map(|version| format!("PEFT {version}, or a program that writes its files")),
            task: text("task_type"),
            set,
            unknown,
            classes: files.classes,
            norms,
            changes: changes.unwrap_or_default(),
            metadata: metadata(&path)?,
            tensors: all,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        let fields = |all: &Map<String, Value>| {
            all.iter().map(|(f, v)| format!("{f} = {v}")).collect::<Vec<_>>().join(", ")
        };
        lines.add("method", &format!("{} ({})", self.method, self.peft_type));
        lines.add("base", self.base_model.as_deref().unwrap_or("not said"));
        lines.add("task", self.task.as_deref().unwrap_or_default());
        lines.add("classes", &self.classes.join(", "));
        lines.add("made by", self.made_by.as_deref().unwrap_or_default());
        lines.add("set", &fields(&self.set));
        lines.add("unknown", &fields(&self.unknown));
        lines.add("metadata", &said(&self.metadata));
        lines.add("weights", &self.tensors.text());
        for (leaf, n) in &self.norms {
            let Norms { count, mean, max } = n;
            lines.add("norm", &format!("{leaf}: {count} tensors, {mean:.4} on average, {max:.4} at most"));
        }
        for Change { name, relative, effective_rank } in &self.changes {
            let rank = effective_rank.map(|r| format!(", effective rank {r:.1}")).unwrap_or_default();
            lines.add("changes", &format!("{name} by {:.3} %{rank}", 100.0 * relative));
        }
        lines.under(&format!("{}: an adapter", self.path.display()))
    }
}

/// The last part of a tensor's name that says something.
pub(super) fn leaf(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name).rsplit('.').next().unwrap_or(name)
}

/// What the adapter makes of the base's weights.
fn changes(base: &Source, dir: &Path, inspect: &Inspect, output: &Output) -> Result<Vec<Change>> {
    let name = adapter_name(&inspect.path, dir)?;
    let given = Given { name: Some(name.clone()), source: inspect.path.clone() };
    let (opened, name) = crate::common::open_for(base, &given, inspect.fit, Device::Cpu, output)?;
    let merged = match opened.peft.merged(&[&name]) {
        Ok(merged) => merged,
        Err(e) => {
            output.note(format!("what it changes cannot be said in weights: {e}"));
            return Ok(Vec::new());
        }
    };
    let after = merged.base().tensors();
    let mut changes = Vec::new();
    for (name, before) in opened.peft.base().tensors() {
        let Some(after) = after.get(&name) else { continue };
        let delta = after.f_to_kind(Kind::Float)?.f_sub(&before.f_to_kind(Kind::Float)?)?;
        let norm =
            |t: &Tensor| Ok::<f64, anyhow::Error>(t.f_to_kind(Kind::Float)?.f_norm()?.f_double_value(&[])?);
        let changed = norm(&delta)?;
        if changed == 0.0 {
            continue;
        }
        let effective_rank = (delta.dim() == 2).then(|| effective_rank(&delta)).transpose()?;
        changes.push(Change {
            relative: changed / norm(&before)?.max(f64::MIN_POSITIVE),
            name,
            effective_rank,
        });
    }
    Ok(changes)
}

fn effective_rank(delta: &Tensor) -> Result<f64> {
    // Directions of the smaller side are enough, and cheaper.
    let (out, inp) = delta.size2()?;
    let gram = if out <= inp { delta.f_matmul(&delta.f_tr()?)? } else { delta.f_tr()?.f_matmul(delta)? };
    let energy = gram.f_to_kind(Kind::Double)?.f_linalg_eigvalsh("L")?.f_clamp_min(0.0)?;
    let shares = energy.f_div(&energy.f_sum(Kind::Double)?)?;
    let entropy = shares.f_xlogy(&shares)?.f_sum(Kind::Double)?.f_double_value(&[])?;
    Ok((-entropy).exp())
}
