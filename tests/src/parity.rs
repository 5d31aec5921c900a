//! Folders of goldens: `base` (a Hub model) and beside it one folder a method, as the generator lays them out. Each
//! method is loaded, run and compared with what Python PEFT computed.

mod start;

use crate::{golden_tensors, relative_error, several};
use anyhow::{Context, Result, bail, ensure};
use peft_core::hub;
use peft_core::methods::from_json;
use peft_core::seam::MethodConfig;
use peft_core::train::{cross_entropy, next_token_loss};
use peft_core::{Batch, Pass, Peft, io};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// Worst relative errors of one method; `None` where the golden has no such number.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Errors {
    pub method: String,
    pub base: f64,
    /// Of what a start that is taken from the base leaves of it.
    pub start: Option<f64>,
    pub logits: f64,
    pub merged: Option<f64>,
    pub loss: Option<f64>,
    pub gradients: Option<f64>,
    /// Name of the worst gradient.
    pub worst: String,
}

impl Errors {
    /// The worst of all.
    pub fn most(&self) -> f64 {
        let optional = [self.start, self.merged, self.loss, self.gradients];
        optional.into_iter().flatten().chain([self.base, self.logits]).fold(0.0, nan_max)
    }
}

/// The larger of two, and NaN if one is.
fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// What a folder's method came to.
pub type Outcome = (PathBuf, Result<Errors>);

/// Compares every method of a family's folder whose name is `wanted`.
pub fn compare(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Outcome>> {
    let mut peft = hub::open(dir.join("base"), Device::Cpu, hub::Head::Stored)?.peft;
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    folders.retain(|p| is_golden(p) && wanted(&folder_name(p)));
    folders.sort();
    let outcomes = folders.into_iter().map(|folder| {
        let outcome = match folder.join("adapter_config.json").exists() {
            true => method(&mut peft, &folder),
            false => several::compare(&mut peft, &folder, &folder_name(&folder)),
        };
        for name in peft.names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            let _ = peft.delete(&name);
        }
        (folder, outcome)
    });
    Ok(outcomes.collect())
}

/// Whether a folder has an adapter or several, and what PEFT computed with them.
fn is_golden(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).exists();
    has("golden.safetensors") && (has("adapter_config.json") || has("a/adapter_config.json"))
}

/// Folders of a family that have goldens of another kind (an optimizer's steps, say), for tests of their own.
pub fn others(dir: &Path) -> Result<Vec<String>> {
    let all: Vec<PathBuf> = std::fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    let mut names: Vec<String> = all
        .iter()
        .filter(|p| p.join("golden.safetensors").exists() && !is_golden(p))
        .map(|p| folder_name(p))
        .collect();
    names.sort();
    Ok(names)
}

type Tensors = BTreeMap<String, Tensor>;

fn method(peft: &mut Peft, dir: &Path) -> Result<Errors> {
    let g = golden_tensors(dir)?;
    let name = |key: &str| g.get(key).with_context(|| format!("the golden has no `{key}`"));
    let batch = Batch::masked(name("input_ids")?.copy(), name("attention_mask")?.copy());
    let mut e = Errors { method: folder_name(dir), ..Errors::default() };
    e.base = relative_error(&peft.view(&[])?.forward(&batch, Pass::eval())?, name("logits_base")?)?;

    peft.load("golden", dir)?;
    files(peft, dir)?;
    numbers(peft, dir, &batch, &g, &mut e)?;
    let residual = start::residual(&g);
    if !residual.is_empty() {
        let far = e.most() > start::FACTORISED;
        e.start = Some(start::error(peft, &residual)?);
        if far {
            e = Errors { method: e.method, base: e.base, start: e.start, ..Errors::default() };
            numbers(&mut start::over_residual(peft, dir, residual)?, dir, &batch, &g, &mut e)?;
        }
    }
    counts(peft, dir)?;
    Ok(e)
}

/// Logits, merged logits, loss and gradients.
fn numbers(peft: &mut Peft, dir: &Path, batch: &Batch, g: &Tensors, e: &mut Errors) -> Result<()> {
    let name = |key: &str| g.get(key).with_context(|| format!("the golden has no `{key}`"));
    let logits = peft.view(&["golden"])?.forward(batch, Pass::eval())?;
    e.logits = relative_error(&logits, name("logits")?).context("logits")?;
    if let Some(expected) = g.get("logits_merged") {
        let merged = peft.merged(&["golden"]).context("merging")?;
        let logits = merged.view(&[])?.forward(batch, Pass::eval())?;
        e.merged = Some(relative_error(&logits, expected).context("merged logits")?);
    } else if peft.merged(&["golden"]).is_ok() {
        bail!("it could be merged, and PEFT cannot");
    }
    gradients(peft, "golden", batch, g, e)?;
    // Where the encoder is but a table, its output is the table.
    let encoder_only = |k: &String| k.starts_with("param.encoder.") && k != "param.encoder.embedding.weight";
    if g.keys().any(encoder_only) {
        encoder(peft, dir, g)?;
        let logits = peft.view(&["encoder"])?.forward(batch, Pass::eval())?;
        e.logits = nan_max(e.logits, relative_error(&logits, name("logits")?).context("encoder")?);
        gradients(peft, "encoder", batch, g, e)?;
    }
    Ok(())
}

/// The last part of a path.
pub fn folder_name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Loss and gradients of an adapter. Every trained tensor must have a golden gradient, and the other way round.
fn gradients(peft: &Peft, adapter: &str, batch: &Batch, g: &Tensors, e: &mut Errors) -> Result<()> {
    let Some(expected) = g.get("loss") else { return Ok(()) };
    let labels = g.get("labels").context("the golden has no `labels`")?;
    let logits = peft.view(&[adapter])?.forward(batch, Pass::train())?;
    let loss = match peft.outline().dims.causal() {
        true => next_token_loss(&logits, labels)?,
        false => cross_entropy(&logits, labels)?,
    };
    let loss = match peft.penalty(&[adapter])? {
        Some(more) => loss + more,
        None => loss,
    };
    let error = relative_error(&loss.detach().view([1]), expected).context("loss")?;
    e.loss = Some(nan_max(e.loss.unwrap_or_default(), error));
    loss.backward();
    let mut unmatched: Vec<&String> = g.keys().filter(|k| of_adapter(k, adapter)).collect();
    let largest = unmatched.iter().map(|k| most(&g[*k])).fold(0.0, nan_max);
    // One number of one layer (a gate) can be the difference of large ones: its scale is that of all layers' numbers.
    let scalars = unmatched.iter().filter(|k| g[**k].numel() == 1).map(|k| most(&g[*k])).fold(0.0, nan_max);
    for (name, p) in peft.trainable(&[adapter])? {
        let key = gradient_key(&name, g);
        let expected = g.get(&key).with_context(|| format!("no golden gradient of `{name}`"))?;
        unmatched.retain(|k| **k != key);
        let grad = if p.grad().defined() { p.grad() } else { p.zeros_like() };
        let mut error = relative_error(&grad, expected).with_context(|| key.clone())?;
        // What is zero but for rounding (the gradient of a key's bias, which softmax does not see) has no scale of its own.
        if most(expected) < 1e-6 * largest {
            error *= most(expected) / largest;
        } else if expected.numel() == 1 {
            error *= most(expected) / scalars;
        }
        if e.gradients.is_none_or(|worst| error.is_nan() || error > worst) {
            (e.gradients, e.worst) = (Some(error), name);
        }
    }
    ensure!(unmatched.is_empty(), "golden gradients that nothing here has: {unmatched:?}");
    Ok(())
}

/// The largest absolute value; 0 of none.
fn most(t: &Tensor) -> f64 {
    if t.numel() == 0 { 0.0 } else { t.abs().max().double_value(&[]) }
}

/// The golden gradient of a trained tensor. With `bias: "all"`, PEFT saves a head's bias under three names, and its
/// gradient is stored under that of the copy.
fn gradient_key(name: &str, g: &Tensors) -> String {
    let key = format!("grad.{name}");
    let (module, leaf) = key.rsplit_once('.').unwrap_or_default();
    let copy = format!("{module}.modules_to_save.{leaf}");
    if g.contains_key(&copy) { copy } else { key }
}

/// Whether a golden tensor is a gradient that this adapter must have. Prompts are stored twice: as the file has them, and
/// as the encoder that they come from.
fn of_adapter(key: &str, adapter: &str) -> bool {
    match key.strip_prefix("grad.") {
        Some(name) if name.starts_with("unsaved.") => false,
        Some("prompt_embeddings") => adapter == "golden",
        Some(name) => !name.starts_with("encoder.") || adapter == "encoder",
        None => false,
    }
}

/// The adapter as it was in training, with the encoder that its file does not have.
fn encoder(peft: &mut Peft, dir: &Path, g: &Tensors) -> Result<()> {
    let mut tensors = io::tensors::read(dir.join("adapter_model.safetensors"))?;
    tensors.remove("prompt_embeddings");
    let encoder = g.iter().filter_map(|(k, t)| Some((k.strip_prefix("param.")?.to_owned(), t.copy())));
    tensors.extend(encoder);
    Ok(peft.add_with("encoder", config(dir)?, tensors)?)
}

fn config(dir: &Path) -> Result<Box<dyn MethodConfig>> {
    Ok(from_json(io::read_json(dir.join("adapter_config.json"))?, "the golden")?)
}

/// PEFT's line about trainable parameters, of a fresh adapter.
fn counts(peft: &mut Peft, dir: &Path) -> Result<()> {
    let Ok(meta) = io::read_json(dir.join("meta.json")) else { return Ok(()) };
    let mut json = io::read_json(dir.join("adapter_config.json"))?;
    if json["peft_type"] == "ADALORA" {
        json["rank_pattern"] = Value::Null;
    }
    peft.add("fresh", from_json(json, "the golden")?)?;
    let (ours, theirs) = (peft.report(&["fresh"])?.to_string(), &meta["print_trainable_parameters"]);
    ensure!(theirs.is_null() || ours == *theirs, "report\n{ours}\nexpected\n{theirs}");
    Ok(())
}

/// What is written equals what was read, field by field and byte by byte.
fn files(peft: &Peft, dir: &Path) -> Result<()> {
    let out = tempfile::tempdir()?;
    peft.save("golden", out.path())?;
    let read = |d: &Path| -> Result<Value> { Ok(as_sets(io::read_json(d.join("adapter_config.json"))?)) };
    let (ours, theirs) = (read(out.path())?, read(dir)?);
    ensure!(ours == theirs, "config\n{ours:#}\nexpected\n{theirs:#}");
    let tensors = |d: &Path| io::tensors::read(d.join("adapter_model.safetensors"));
    let (ours, theirs) = (tensors(out.path())?, tensors(dir)?);
    ensure!(ours.keys().eq(theirs.keys()), "names {:?}\nexpected {:?}", ours.keys(), theirs.keys());
    for (name, t) in &theirs {
        ensure!(crate::same_bits(&ours[name], t), "{name} has other bytes");
    }
    Ok(())
}

/// Fields that are sets in PEFT's memory: written in any order, and with duplicates at every save.
fn as_sets(mut config: Value) -> Value {
    for field in ["target_modules", "modules_to_save", "exclude_modules", "feedforward_modules"] {
        if let Some(list) = config[field].as_array_mut() {
            list.sort_by_key(Value::to_string);
            list.dedup();
        }
    }
    config
}
