//! Shared by the tests: reading goldens, comparing tensors, the conformance table.

#[cfg(target_os = "linux")]
pub mod hostile;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod kills;
pub mod parity;
pub mod random;
pub mod reference;
#[cfg(target_os = "linux")]
pub mod reliability;
pub mod resume;
pub mod several;
pub mod subject;
pub mod table;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod trace;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};
use tempfile::TempDir;

/// The Rust in the README: every piece of it is compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// A folder below `tests/golden`.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(path)
}

/// A golden base with fields of its `config.json` changed (null takes one out).
pub fn edited(base: &str, changes: &Value) -> Result<TempDir> {
    let from = golden(base).join("base");
    let dir = tempfile::tempdir()?;
    std::fs::copy(from.join("model.safetensors"), dir.path().join("model.safetensors"))?;
    let mut config = peft_core::io::read_json(from.join("config.json"))?;
    let fields = config.as_object_mut().context("config.json is no object")?;
    for (field, value) in changes.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(fields.remove(field)),
            value => drop(fields.insert(field.clone(), value.clone())),
        }
    }
    peft_core::io::write_json(dir.path().join("config.json"), &config)?;
    Ok(dir)
}

/// A copy of a folder's files, to be changed.
pub fn copied(from: &Path) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        std::fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
    }
    Ok(dir)
}

/// Worst difference relative to the golden's largest value: `max |a − b| / max |b|`.
pub fn relative_error(found: &Tensor, expected: &Tensor) -> Result<f64> {
    if found.size() != expected.size() {
        bail!("shape {:?}, expected {:?}", found.size(), expected.size());
    }
    if expected.numel() == 0 {
        return Ok(0.0);
    }
    let (a, b) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let scale = f64::try_from(b.abs().max())?;
    let worst = f64::try_from((&a - &b).abs().max())?;
    if worst.is_nan() {
        bail!("not a number");
    }
    Ok(if worst == 0.0 { 0.0 } else { worst / scale })
}

/// Fails unless `found` is within `tol` of `expected`, relative to its largest value.
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tol: f64) -> Result<()> {
    let error = relative_error(found, expected).with_context(|| what.to_owned())?;
    if error > tol {
        bail!("{what}: relative error {error:.2e}, at most {tol:.0e} expected");
    }
    Ok(())
}

/// The tensors of a golden folder's `golden.safetensors`.
pub fn golden_tensors(dir: &Path) -> Result<BTreeMap<String, Tensor>> {
    Ok(peft_core::io::tensors::read(dir.join("golden.safetensors"))?)
}

/// Whether two tensors have the same shape, dtype and bits.
pub fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.kind() == b.kind() && a.equal(b)
}

/// Fails unless both have the same bits.
pub fn assert_bits(what: &str, found: &Tensor, expected: &Tensor) -> Result<()> {
    if !same_bits(found, expected) {
        let by = relative_error(found, expected).with_context(|| what.to_owned())?;
        bail!("{what}: not the same bits, relative error {by:.2e}");
    }
    Ok(())
}

/// libtorch has one random generator for the whole process: whoever draws holds this. Also goes back to one thread,
/// where sums have one order, and to a fixed seed.
pub fn serial() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    tch::manual_seed(0);
    guard
}

/// The error of a call that has to fail, whose text must be one line and hold all of `parts`.
pub fn refused<T>(what: &str, result: peft_core::Result<T>, parts: &[&str]) -> Result<peft_core::Error> {
    let Err(error) = result else { bail!("{what}: was accepted") };
    let text = error.to_string();
    if let Some(part) = parts.iter().find(|p| !text.contains(**p)) {
        bail!("{what}: the message lacks `{part}`: {text}");
    }
    if text.lines().count() != 1 {
        bail!("{what}: the message has several lines: {text}");
    }
    Ok(error)
}

/// What a model can read.
pub fn limits(vocab: i64, positions: i64, pad: i64) -> peft_core::text::Limits {
    peft_core::text::Limits { vocab, positions: Some(positions), pad }
}

/// The `config.json` of a BERT's directory, with `classes` where that is given.
pub fn bert_config(
    dir: &std::path::Path,
    classes: Option<i64>,
) -> peft_core::Result<peft_core::models::EncoderConfig> {
    let path = dir.join("config.json");
    peft_core::models::bert::config(&peft_core::io::read_json(&path)?, &path.display().to_string(), classes)
}
