//! Weights in shards, and what their index says.

use crate::{logits, open, short, warned};
use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io;
use peft_core::io::tensors;
use peft_core::quant::Nf4Config;
use serde_json::json;
use std::collections::BTreeMap;
use tch::{Device, Tensor};
use tempfile::TempDir;
use tests::{assert_bits, edited, golden, refused, serial};

/// The golden Llama in the two shards of an index, one tensor perhaps in both.
pub fn directory(name: &str, both: Option<&str>) -> Result<TempDir> {
    let dir = edited("llama", &json!({}))?;
    let all = tensors::read(dir.path().join("model.safetensors"))?;
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::copy(golden("cases").join(name).join("model.safetensors.index.json"), &index)?;
    std::fs::remove_file(dir.path().join("model.safetensors"))?;
    let mut files: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
    let map: BTreeMap<String, String> = serde_json::from_value(io::read_json(&index)?["weight_map"].take())?;
    for (tensor, file) in &map {
        let Some(t) = all.get(tensor) else { continue };
        files.entry(file.clone()).or_default().insert(tensor.clone(), t.copy());
    }
    for (file, tensors) in &mut files {
        for tensor in both.into_iter().filter(|_| file.contains("00001")) {
            tensors.insert(tensor.to_owned(), all[tensor].copy());
        }
        tensors::write(dir.path().join(file), tensors)?;
    }
    Ok(dir)
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

#[test]
fn an_index_that_is_not_what_the_shards_have() -> Result<()> {
    let _serial = serial();
    let plain = open(&golden("llama/base"))?.peft;
    let (same, norm) = ("and the same", "model.norm.weight");
    let stale = "model.layers.0.self_attn.rotary_emb.inv_freq";
    for (dir, parts) in [
        (directory("index_stale", None)?, [".index.json", stale, FIRST, "no shard has it"]),
        (directory("shard_dup", Some(norm))?, [norm, FIRST, SECOND, same]),
    ] {
        let opened = open(dir.path())?;
        warned(&opened.warnings, &[&parts])?;
        assert_bits("logits", &logits(&opened.peft, &short())?, &logits(&plain, &short())?)?;
        ensure!(opened.unused.is_empty(), "{:?}", opened.unused);
        let how = Nf4Config::default();
        let options = hub::Options { quantise: Some(how), ..Head::Stored.into() };
        drop(hub::open(dir.path(), Device::Cpu, options)?);
    }

    // Another tensor of that name is nothing to choose from.
    let dir = directory("shard_dup", Some(norm))?;
    let path = dir.path().join(FIRST);
    let mut all = tensors::read(&path)?;
    all.insert(norm.to_owned(), &all[norm] + 1.0);
    tensors::write(&path, &all)?;
    refused("two", open(dir.path()), &[".index.json", norm, FIRST, SECOND, "not the same"])?;

    // What the model needs is missed, with the shard where it should be.
    let dir = directory("index_stale", None)?;
    let path = dir.path().join(SECOND);
    let mut all = tensors::read(&path)?;
    all.remove(norm);
    tensors::write(&path, &all)?;
    let parts = [".index.json", norm, "[32]", SECOND, "no shard has it", "fetch"];
    refused("missing", open(dir.path()), &parts)?;
    let quantise = Some(Nf4Config::default());
    let options = hub::Options { quantise, ..Head::Stored.into() };
    refused("in 4 bits", hub::open(dir.path(), Device::Cpu, options), &parts)?;

    // A tensor that the index does not list is read as well, and a single file counts alone.
    let dir = directory("shard_dup", None)?;
    let index = dir.path().join("model.safetensors.index.json");
    let mut json = io::read_json(&index)?;
    json["weight_map"].as_object_mut().context("map")?.remove(norm);
    io::write_json(&index, &json)?;
    let opened = open(dir.path())?;
    assert_bits("unlisted", &logits(&opened.peft, &short())?, &logits(&plain, &short())?)?;
    std::fs::copy(golden("llama/base/model.safetensors"), dir.path().join("model.safetensors"))?;
    std::fs::write(dir.path().join(SECOND), "broken")?;
    let opened = open(dir.path())?;
    warned(&opened.warnings, &[&[".index.json", "model.safetensors", "no shard is read"]])?;
    assert_bits("single", &logits(&opened.peft, &short())?, &logits(&plain, &short())?)
}
