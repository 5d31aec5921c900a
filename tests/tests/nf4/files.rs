//! Directories in 4 bits, and dense ones that are quantised as they are read.

use crate::{DOUBLE, qlora, quantise};
use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io::{read_json, tensors, write_json};
use peft_core::quant::{Nf4, Nf4Config};
use peft_core::{Error, Peft};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tests::{assert_bits, golden, refused, serial};

const WEIGHT: &str = "model.layers.0.mlp.up_proj.weight";

fn config(dir: &Path) -> Result<Value> {
    Ok(read_json(dir.join("config.json"))?)
}

fn same_tensors(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> Result<()> {
    ensure!(a.keys().eq(b.keys()), "{:?}\n{:?}", a.keys(), b.keys());
    a.iter().try_for_each(|(name, t)| assert_bits(name, &b[name], t))
}

#[test]
fn what_transformers_saved_comes_back_byte_by_byte() -> Result<()> {
    let (dir, out) = (golden("nf4/qlora_llama/base"), tempfile::tempdir()?);
    hub::save(&qlora()?.peft, out.path(), None)?;
    ensure!(config(out.path())? == config(&dir)?, "{:#}", config(out.path())?);
    let read = |d: &Path| tensors::read(d.join("model.safetensors"));
    same_tensors(&read(out.path())?, &read(&dir)?)
}

/// Quantising at load, quantising in memory, and writing and reading what came of it.
fn three_ways(family: &str, how: &Nf4Config, quantised: usize) -> Result<()> {
    let dir = golden(family).join("base");
    let loaded = hub::open(&dir, Device::Cpu, quantise(how))?.peft;
    ensure!(loaded.base().nf4s().len() == quantised, "{family}: {:?}", loaded.base().nf4s().keys());
    let held = hub::open(&dir, Device::Cpu, Head::Stored)?.peft.quantised(how)?;
    let out = tempfile::tempdir()?;
    hub::save(&held, out.path(), None)?;
    let again = hub::open(out.path(), Device::Cpu, Head::Stored)?.peft;
    let all = |peft: &Peft| -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = peft.base().tensors();
        for (name, w) in peft.base().nf4s() {
            peft_core::quant::file::put(&name, &w, &mut tensors)?;
            ensure!(w.compute() == how.compute, "{name}: {:?}", w.compute());
        }
        Ok(tensors)
    };
    same_tensors(&all(&loaded)?, &all(&held)?)?;
    same_tensors(&all(&loaded)?, &all(&again)?)
}

#[test]
fn at_load_in_memory_and_from_disk() -> Result<()> {
    three_ways("llama", &DOUBLE, 14)?;
    three_ways("gpt2", &Nf4Config { compute: Kind::BFloat16, ..Nf4Config::default() }, 8)?;
    // All but the classifier: pooler and six a layer.
    three_ways("bert", &DOUBLE, 13)
}

/// transformers' null stands for the head of a language model; everything else that is dense is listed.
#[test]
fn layers_that_stay_dense() -> Result<()> {
    let skip = |modules: &[&str]| Nf4Config {
        skip_modules: modules.iter().map(|m| (*m).into()).collect(),
        ..DOUBLE
    };
    let open = |modules: &[&str]| hub::open(golden("llama/base"), Device::Cpu, quantise(&skip(modules)));
    for (modules, quantised) in [
        (&["lm_head"][..], 14),
        (&["up_proj"], 12),
        (&["model.layers.0"], 7),
        (&["model.layers.*.mlp", "q_proj"], 6),
    ] {
        let peft = open(modules)?.peft;
        ensure!(peft.base().nf4s().len() == quantised, "{modules:?}: {:?}", peft.base().nf4s().keys());
        let out = tempfile::tempdir()?;
        hub::save(&peft, out.path(), None)?;
        let listed = &config(out.path())?["quantization_config"]["llm_int8_skip_modules"];
        let count = listed.as_array().map_or(0, Vec::len);
        ensure!(count == if quantised == 14 { 0 } else { 15 - quantised }, "{modules:?}: {listed}");
        ensure!(quantised == 14 || listed.to_string().contains("\"lm_head\""), "{listed}");
    }
    for wrong in ["model.layers.7", "up", "layer"] {
        refused(wrong, open(&[wrong]), &["NF4", "skip_modules", &format!("`{wrong}`"), "matches nothing"])?;
    }
    refused("regex", open(&["model.("]), &["skip_modules", "`model.(`"])?;
    let how = Nf4Config { compute: Kind::Double, ..DOUBLE };
    let opened = hub::open(golden("llama/base"), Device::Cpu, quantise(&how));
    refused("dtype", opened, &["NF4", "compute", "Double", "BFloat16"])?;
    Ok(())
}

/// A copy of the 4-bit base, edited.
fn edited(
    config: impl FnOnce(&mut Value),
    edit: impl FnOnce(&mut BTreeMap<String, Tensor>),
) -> Result<TempDir> {
    let (from, dir) = (golden("nf4/qlora_llama/base"), tempfile::tempdir()?);
    let mut json = read_json(from.join("config.json"))?;
    config(&mut json);
    write_json(dir.path().join("config.json"), &json)?;
    let mut all = tensors::read(from.join("model.safetensors"))?;
    edit(&mut all);
    tensors::write(dir.path().join("model.safetensors"), &all)?;
    Ok(dir)
}

fn refuse(what: &str, dir: &TempDir, parts: &[&str]) -> Result<Error> {
    let place = dir.path().display().to_string();
    refused(what, hub::open(dir.path(), Device::Cpu, Head::Stored), &[parts, &[&place]].concat())
}

#[test]
fn other_kinds_of_quantisation_are_refused_by_name() -> Result<()> {
    let with = |field: &str, value: Value| edited(|c| c["quantization_config"][field] = value, |_| ());
    for (field, value, found) in [
        ("quant_method", json!("gptq"), "\"gptq\""),
        ("bnb_4bit_quant_type", json!("fp4"), "\"fp4\""),
        ("load_in_8bit", json!(true), "true"),
        ("bnb_4bit_compute_dtype", json!("float8"), "`float8`"),
        ("bits", json!(3), "3"),
    ] {
        let parts = ["config.json", &format!("quantization_config.{field}"), found];
        refuse(field, &with(field, value)?, &parts)?;
    }
    let dir = edited(|c| c["quantization_config"] = json!("nf4"), |_| ())?;
    refuse("no object", &dir, &["quantization_config", "not an object"])?;
    let dir = edited(|c| c["quantization_config"] = Value::Null, |_| ())?;
    refuse("silence", &dir, &["config.json", "quantization_config", "missing", "4 bits"])?;

    let opened = hub::open(golden("nf4/qlora_llama/base"), Device::Cpu, quantise(&DOUBLE));
    refused("twice", opened, &["config.json", "quantization_config", "already"])?;
    let Err(error) = qlora()?.peft.quantised(&DOUBLE) else { anyhow::bail!("quantised twice") };
    ensure!(error.to_string().contains("4-bit") && error.to_string().contains("exists"), "{error}");
    let dense = tempfile::tempdir()?;
    let mut json = config(&golden("llama/base"))?;
    json["quantization_config"] = config(&golden("nf4/qlora_llama/base"))?["quantization_config"].take();
    write_json(dense.path().join("config.json"), &json)?;
    std::fs::copy(golden("llama/base/model.safetensors"), dense.path().join("model.safetensors"))?;
    refuse("a dense file", &dense, &["config.json", "quantization_config", "none of"])?;
    Ok(())
}

fn state(all: &mut BTreeMap<String, Tensor>, from: &str, to: &str) -> Result<()> {
    let name = format!("{WEIGHT}.quant_state.bitsandbytes__nf4");
    let text = String::from_utf8(Vec::<u8>::try_from(&all[&name])?)?;
    ensure!(text.contains(from), "{text}");
    all.insert(name, Tensor::from_slice(text.replace(from, to).as_bytes()));
    Ok(())
}

#[test]
fn a_quant_state_that_is_something_else() -> Result<()> {
    for (from, to, parts) in [
        ("\"nf4\"", "\"fp4\"", &["quant_type", "`fp4`", "`nf4`"][..]),
        ("\"blocksize\": 64", "\"blocksize\": 128", &["blocksize", "128", "64"]),
        ("\"dtype\": \"float32\", \"shape\"", "\"dtype\": \"int8\", \"shape\"", &["dtype", "`int8`"]),
        ("[128, 64]", "[128]", &["shape", "[128]"]),
        ("[128, 64]", "[-1, 64]", &["shape", "[-1, 64]"]),
        ("[128, 64]", "[9223372036854775807, 64]", &["shape", "cannot be"]),
        ("\"nested_blocksize\": 256", "\"nested_blocksize\": 64", &["nested_blocksize", "64", "256"]),
        ("{", "", &["JSON"]),
        ("\"blocksize\"", "\"rotated\": true, \"blocksize\"", &["JSON", "rotated"]),
    ] {
        let mut made = Ok(());
        let dir = edited(|_| (), |all| made = state(all, from, to))?;
        made?;
        refuse(to, &dir, &[parts, &[&format!("{WEIGHT}.quant_state")]].concat())?;
    }
    // The values without their names are no state, in whatever order.
    let bare = r#"["nf4", 64, "float32", [128, 64], 256, "float32", 0.5]"#;
    let name = format!("{WEIGHT}.quant_state.bitsandbytes__nf4");
    let dir = edited(|_| (), |all| drop(all.insert(name.clone(), Tensor::from_slice(bare.as_bytes()))))?;
    refuse("an array", &dir, &[&format!("{WEIGHT}.quant_state"), "JSON", "map"])?;
    let mut made = Ok(());
    let dir = edited(|_| (), |all| made = state(all, "[128, 64]", "[64, 128]"))?;
    made?;
    refuse("turned", &dir, &[WEIGHT, "[64, 128]", "[128, 64]", "4 bits"])?;
    Ok(())
}

#[test]
fn parts_that_are_missing_or_wrong() -> Result<()> {
    for part in ["", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"] {
        let name = format!("{WEIGHT}{part}");
        let dir = edited(|_| (), |all| drop(all.remove(&name)))?;
        let error = refuse("missing", &dir, &[&format!("`{name}`"), "no tensor", "4 bits"])?;
        ensure!(matches!(error, Error::Missing { .. }), "{error:?}");
        let cut = |all: &mut BTreeMap<String, Tensor>| {
            let t = all.get(&name).map(|t| t.narrow(0, 0, t.size()[0] - 1)).unwrap_or_default();
            all.insert(name.clone(), t);
        };
        let dir = edited(|_| (), cut)?;
        // A last scale of one is no scale.
        let error = refuse("cut", &dir, &[&format!("`{name}`"), "shape"])?;
        ensure!(matches!(error, Error::Shape { .. }), "{error:?}");
    }
    let state = format!("{WEIGHT}.quant_state.bitsandbytes__nf4");
    let dir = edited(|_| (), |all| drop(all.remove(&state)))?;
    refuse("no state", &dir, &[&format!("`{state}`"), "no tensor"])?;
    let absmax = format!("{WEIGHT}.absmax");
    let dir = edited(
        |_| (),
        |all| {
            let t = all[&absmax].to_kind(Kind::Float);
            all.insert(absmax.clone(), t);
        },
    )?;
    refuse("dtype", &dir, &[&absmax, "Float", "Uint8"])?;
    Ok(())
}

/// Only a linear layer can be in 4 bits here.
#[test]
fn an_embedding_in_four_bits() -> Result<()> {
    let words = "model.embed_tokens.weight";
    let mut made = Ok(());
    let dir = edited(
        |_| (),
        |all| {
            made = (|| {
                let w = Nf4::quantise(words, &all[words], &DOUBLE)?;
                peft_core::quant::file::put(words, &w, all)
            })();
        },
    )?;
    made?;
    refuse("embedding", &dir, &[words, "4 bits", "linear"])?;
    Ok(())
}

/// transformers quantises a classifier that has a bias, unless it is told not to.
#[test]
fn a_classifier_in_four_bits() -> Result<()> {
    let _serial = serial();
    let (dir, name) = (tempfile::tempdir()?, "classifier.weight");
    let peft = hub::open(golden("bert/base"), Device::Cpu, quantise(&DOUBLE))?.peft;
    hub::save(&peft, dir.path(), None)?;
    let file = dir.path().join("model.safetensors");
    let mut all = tensors::read(&file)?;
    let head = all.remove(name).context("no head")?;
    peft_core::quant::file::put(name, &Nf4::quantise(name, &head, &DOUBLE)?, &mut all)?;
    tensors::write(&file, &all)?;
    let open = |head: Head| hub::open(dir.path(), Device::Cpu, head);
    ensure!(open(Head::Stored)?.peft.base().find_nf4(name).is_some(), "the head is dense");
    ensure!(open(Head::Classes(3))?.fresh == ["classifier.bias"; 0], "a fresh head");
    refused("classes", open(Head::Classes(5)), &[name, "[3, 32]", "[5, 32]", "other classes"])?;
    let fresh = open(Head::Fresh(5))?;
    ensure!(fresh.fresh == [name, "classifier.bias"], "{:?}", fresh.fresh);
    ensure!(fresh.peft.base().find(name).is_some_and(|w| w.size() == [5, 32]), "no dense head");
    Ok(())
}

/// `bnb_4bit_quant_storage`: the codes' bytes as bf16.
#[test]
fn codes_that_are_stored_as_another_dtype() -> Result<()> {
    let dir = edited(
        |c| c["quantization_config"]["bnb_4bit_quant_storage"] = "bfloat16".into(),
        |all| {
            for (name, t) in all.iter_mut().filter(|(_, t)| t.kind() == Kind::Uint8 && t.dim() == 2) {
                assert!(name.ends_with("proj.weight"));
                *t = t.view([-1]).view_dtype(Kind::BFloat16).view([-1, 1]);
            }
        },
    )?;
    let opened = hub::open(dir.path(), Device::Cpu, Head::Stored)?.peft;
    let expected = qlora()?.peft.base().nf4s();
    let found = opened.base().nf4s();
    ensure!(found.len() == 14, "{}", found.len());
    for (name, w) in found {
        let expected = expected.get(&name).with_context(|| name.clone())?;
        assert_bits(&name, &w.dequantise()?, &expected.dequantise()?)?;
    }
    Ok(())
}
