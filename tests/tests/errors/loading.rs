//! Directories of something else: another model's adapter, a model where an adapter should be, files in other forms.

use crate::{bert, copy, edit_json, edit_tensors};
use anyhow::{Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::{Error, Peft};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tests::{edited, golden, refused};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const WEIGHTS: &str = "model.safetensors";
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n";

type Tensors = BTreeMap<String, Tensor>;

fn open(dir: &Path) -> peft_core::Result<Peft> {
    Ok(hub::open(dir, Device::Cpu, Head::Stored)?.peft)
}

fn llama() -> Result<Peft> {
    Ok(open(&golden("llama/base"))?)
}

/// Llama with its `config.json` changed; the message has to name the file and hold `parts`.
fn opened_with(changes: Value, parts: &[&str]) -> Result<()> {
    let dir = edited("llama", &changes)?;
    refused(&changes.to_string(), open(dir.path()), &[&["config.json"], parts].concat())?;
    Ok(())
}

#[test]
fn an_adapter_of_another_family() -> Result<()> {
    let load = |folder: &str, parts: &[&str]| -> Result<()> {
        let mut peft = llama()?;
        refused(folder, peft.load("a", golden(folder)), &[&[folder], parts].concat())?;
        ensure!(peft.names().is_empty(), "{folder}: it was added all the same");
        Ok(())
    };
    load("bert/lora", &[CONFIG, "LoRA", "`query` in target_modules", "is it for another one?"])?;
    load("bert/ia3", &[CONFIG, "(IA)³", "`key` in target_modules", "is it for another one?"])?;
    load("gpt2/lora", &[CONFIG, "LoRA", "`c_attn` in target_modules"])?;
    load("bert/prefix", &[CONFIG, "token_dim", "32", "16"])?;
    load("bert/prompt", &[CONFIG, "task_type", "SEQ_CLS", "CAUSAL_LM"])?;
    let taskless = copy("bert/prompt")?;
    edit_json(&taskless.path().join(CONFIG), |c| c["task_type"] = Value::Null)?;
    let parts = [TENSORS, "`base_model.classifier.bias`", "is it for another model"];
    refused("without a task", llama()?.load("a", taskless.path()), &parts)?;
    let mut gpt2 = hub::open(golden("gpt2/base"), Device::Cpu, Head::Stored)?.peft;
    let parts = [CONFIG, "`v_proj` in target_modules", "did you mean `c_proj`?"];
    refused("llama's on GPT-2", gpt2.load("a", golden("llama/lora")), &parts)?;
    Ok(())
}

/// Each key of a file is one that the adapter has, with its shape.
#[test]
fn keys_that_are_missing_superfluous_or_of_another_shape() -> Result<()> {
    const KEY: &str = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight";
    let load = |what: &str, edit: fn(&mut Tensors), parts: &[&str]| {
        let dir = copy("bert/lora")?;
        edit_tensors(&dir.path().join(TENSORS), edit)?;
        refused(what, bert()?.load("a", dir.path()), &[&[TENSORS], parts].concat())
    };
    let missing = load("missing", |all| drop(all.remove(KEY)), &[KEY, "[4, 32]", "closest name"])?;
    ensure!(matches!(missing, Error::Missing { .. }), "{missing:?}");
    let more = |all: &mut Tensors| {
        let copy = all[KEY].copy();
        drop(all.insert(KEY.replace("layer.0", "layer.9"), copy));
    };
    let parts = ["nothing reads", "layer.9.attention", "is it for another model or configuration?"];
    let more = load("superfluous", more, &parts)?;
    ensure!(matches!(more, Error::Unread { .. }), "{more:?}");
    let turned = |all: &mut Tensors| {
        let turned = all[KEY].tr().contiguous();
        drop(all.insert(KEY.into(), turned));
    };
    let turned = load("transposed", turned, &[KEY, "[32, 4]", "expected [4, 32]"])?;
    ensure!(matches!(turned, Error::Shape { .. }), "{turned:?}");
    load("none at all", |all| all.clear(), &["query.lora_A.weight", "holds no tensors"])?;
    Ok(())
}

#[test]
fn a_model_for_an_adapter_and_the_other_way_round() -> Result<()> {
    let parts = [CONFIG, "config.json", "a model and no adapter", "hub::open"];
    refused("a model", llama()?.load("a", golden("llama/base")), &parts)?;
    let parts = ["llama/lora/config.json", CONFIG, "an adapter and no model", "Peft::load"];
    refused("an adapter", open(&golden("llama/lora")), &parts)?;
    ensure!(open(&golden("bert/base"))?.outline().dims.model_type == "bert", "the directory says the family");
    opened_with(json!({ "model_type": null }), &["model_type: is missing", "`llama`"])
}

/// What stands where safetensors should says what it is.
#[test]
fn files_in_other_forms() -> Result<()> {
    for (bytes, hint) in [
        (POINTER, "git lfs pull"),
        (b"PK\x03\x04 and so on, a pickle of some length", "pickle"),
        (b"\x10\0\0\0\0\0\0\0{\"a\": ", "cut off"),
    ] {
        let (adapter, base) = (copy("llama/lora")?, copy("llama/base")?);
        std::fs::write(adapter.path().join(TENSORS), bytes)?;
        refused(hint, llama()?.load("a", adapter.path()), &[TENSORS, "not a safetensors file", hint])?;
        std::fs::write(base.path().join(WEIGHTS), bytes)?;
        refused(hint, open(base.path()), &[WEIGHTS, "not a safetensors file", hint])?;
    }
    let whole = std::fs::read(golden("llama/base").join(WEIGHTS))?;
    let dir = copy("llama/base")?;
    for length in [0, 5, 60, 3000, whole.len() - 1] {
        std::fs::write(dir.path().join(WEIGHTS), &whole[..length])?;
        refused("truncated", open(dir.path()), &[WEIGHTS, "cut off"])?;
    }
    let dir = copy("llama/base")?;
    std::fs::remove_file(dir.path().join(WEIGHTS))?;
    std::fs::write(dir.path().join("pytorch_model.bin.index.json"), "{}")?;
    refused("shards of pickles", open(dir.path()), &["pytorch_model.bin.index.json", "weight_map"])?;
    let shard = r#"{"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}"#;
    std::fs::write(dir.path().join("pytorch_model.bin.index.json"), shard)?;
    let file = "pytorch_model-00001-of-00001.bin";
    refused(
        "a shard that is missing",
        open(dir.path()),
        &["pytorch_model.bin.index.json", file, "not there"],
    )?;
    std::fs::copy(golden("pickle/legacy.bin"), dir.path().join(file))?;
    let to = "'model-00001-of-00001.safetensors'";
    refused("a shard of old", open(dir.path()), &[file, "pickle", "torch.load", to])?;
    Ok(())
}

#[test]
fn other_kinds_of_quantisation() -> Result<()> {
    let quantised = |fields: Value, parts: &[&str]| {
        let hint = ["quantization_config", "Options::quantise"];
        opened_with(json!({ "quantization_config": fields }), &[parts, &hint].concat())
    };
    quantised(json!({ "quant_method": "gptq", "bits": 4 }), &["quant_method", "gptq", "bitsandbytes"])?;
    quantised(json!({ "quant_method": "awq" }), &["quant_method", "awq"])?;
    let bits8 = json!({ "quant_method": "bitsandbytes", "load_in_8bit": true });
    quantised(bits8, &["load_in_8bit", "true"])?;
    let fp4 = json!({ "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "fp4" });
    quantised(fp4, &["bnb_4bit_quant_type", "fp4", "nf4"])?;
    opened_with(json!({ "quantization_config": "nf4" }), &["quantization_config: ", "is not an object"])
}

/// Integers are no weights, in a base as little as in an adapter.
#[test]
fn a_base_of_integers() -> Result<()> {
    let dir = copy("llama/base")?;
    edit_tensors(&dir.path().join(WEIGHTS), |all| {
        let int = all["model.norm.weight"].to_kind(Kind::Int64);
        all.insert("model.norm.weight".into(), int);
    })?;
    let error = refused("integers", open(dir.path()), &[WEIGHTS, "`model.norm.weight`", "Int64", "floats"])?;
    ensure!(matches!(error, Error::Dtype { .. }), "{error:?}");
    Ok(())
}

#[test]
fn shards_that_are_no_names() -> Result<()> {
    let dir = copy("llama/base")?;
    std::fs::rename(dir.path().join(WEIGHTS), dir.path().join("one.safetensors"))?;
    let index = dir.path().join("model.safetensors.index.json");
    let map = json!({ "weight_map": { "model.norm.weight": "one.safetensors" } });
    peft_core::io::write_json(&index, &map)?;
    drop(open(dir.path())?);
    edit_json(&index, |i| i["weight_map"]["lm_head.weight"] = 3.into())?;
    let parts = ["index.json", "`3`", "`lm_head.weight`", "beside it"];
    refused("a number", open(dir.path()), &parts)?;
    edit_json(&index, |i| i["weight_map"]["lm_head.weight"] = "two.safetensors".into())?;
    refused("missing", open(dir.path()), &["index.json", "`two.safetensors`", "not there", "fetch"])?;
    Ok(())
}
