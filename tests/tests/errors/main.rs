//! One test for each way to go wrong at the edges: files, configurations, inputs. A message names the place, what
//! was expected and what was found.

mod adapter;
mod directory;
mod hub;
mod loading;
mod lora;
mod methods;
mod model;
mod products;
mod prompts;
mod text;
mod training;
mod weights;

use anyhow::Result;
use peft_core::io::{read_json, tensors, write_json};
use peft_core::models::TinyConfig;
use peft_core::{Batch, Peft};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tests::golden;

const TINY: TinyConfig = TinyConfig { vocab: 20, hidden: 8, layers: 2, heads: 2, ffn: 12, classes: 3 };

fn tiny() -> Result<Peft> {
    Ok(Peft::new(TINY.init(Device::Cpu)?, TINY)?)
}

fn bert() -> Result<Peft> {
    let (dir, head) = (golden("bert/base"), peft_core::hub::Head::Stored);
    Ok(peft_core::hub::open(&dir, Device::Cpu, head)?.peft)
}

fn ids(vocab: i64, shape: [i64; 2]) -> Tensor {
    Tensor::randint(vocab, shape, (Kind::Int64, Device::Cpu))
}

fn dense(rows: &[[i64; 3]]) -> Batch {
    Batch::dense(Tensor::from_slice2(rows))
}

/// A copy of a golden folder.
fn copy(folder: &str) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for entry in std::fs::read_dir(golden(folder))? {
        let entry = entry?;
        std::fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
    }
    Ok(dir)
}

/// Changes a JSON file.
fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let mut value = read_json(path)?;
    edit(&mut value);
    Ok(write_json(path, &value)?)
}

/// Changes a safetensors file.
fn edit_tensors(path: &Path, edit: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Result<()> {
    let mut all = tensors::read(path)?;
    edit(&mut all);
    Ok(tensors::write(path, &all)?)
}
