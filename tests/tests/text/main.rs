//! Training data in the forms that there are of it, against what transformers makes of the same.

mod answers;
mod chats;
mod classes;
mod corpora;
mod encodings;
mod hostile;
mod lengths;
mod numbers;
mod packing;
mod predicting;
mod tables;

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// `tests/golden/cases/12_data/<name>`.
fn case(name: &str) -> PathBuf {
    tests::golden("cases").join("12_data").join(name)
}

/// Tokenizers and templates: a folder of `tests/golden/text`.
fn folder(name: &str) -> PathBuf {
    tests::golden("text").join(name)
}

/// What transformers made, by `make_text.py`.
fn reference(part: &str) -> Result<Value> {
    let cases = peft_core::io::read_json(tests::golden("text").join("cases.json"))?;
    cases.get(part).cloned().with_context(|| part.to_owned())
}

/// A file of these bytes.
struct Given {
    _dir: TempDir,
    path: PathBuf,
}

impl AsRef<Path> for Given {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

fn given(name: &str, bytes: impl AsRef<[u8]>) -> Result<Given> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join(name);
    std::fs::write(&path, bytes)?;
    Ok(Given { _dir: dir, path })
}

fn rows<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T> {
    Ok(serde_json::from_value(value.clone())?)
}
