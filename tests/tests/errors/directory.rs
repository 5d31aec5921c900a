//! What is no model directory, or the directory of another model.

use crate::{copy, edit_json, edit_tensors, ids};
use anyhow::{Result, ensure};
use peft_core::estimate::Blueprint;
use peft_core::generate::{GenerateConfig, GenerationSettings};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::models::FAMILIES;
use peft_core::{Batch, Model, Pass};
use serde_json::json;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tests::{golden, refused, serial};

const WEIGHTS: &str = "model.safetensors";

fn open(dir: &Path, head: Head) -> peft_core::Result<hub::Opened> {
    hub::open(dir, Device::Cpu, head)
}

/// Every way to ask for a model says the same of what is none.
fn no_model(path: &Path, parts: &[&str]) -> Result<()> {
    let place = path.display().to_string();
    let parts = [parts, &[&place]].concat();
    refused("open", open(path, Head::Stored), &parts)?;
    refused("config", hub::architecture(path, Head::Stored), &parts)?;
    refused("ids", hub::TokenIds::read(path), &parts)?;
    refused("settings", GenerationSettings::read(path, GenerateConfig::default()), &parts)?;
    refused("estimate", Blueprint::open(path), &parts)?;
    Ok(())
}

#[test]
fn what_is_no_model_directory_is_named() -> Result<()> {
    no_model(Path::new("no-where"), &["no such directory"])?;
    no_model(Path::new("Qwen/Qwen2.5-0.5B"), &["no such directory", "hf download Qwen/Qwen2.5-0.5B"])?;
    let dir = tempfile::tempdir()?;
    let with = |name: &str, contents: &[u8]| -> Result<PathBuf> {
        let path = dir.path().join(name);
        std::fs::write(&path, contents)?;
        Ok(path)
    };
    no_model(&with("model.safetensors", b"xxxxxxxx")?, &["tensors", "directory"])?;
    no_model(&with("pytorch_model.bin", b"PK")?, &["tensors", "directory"])?;
    no_model(&with("config.json", b"{}")?, &["a file", "directory"])?;
    no_model(&with("model.gguf", b"GGUF\x03\0\0\0")?, &["GGUF", "llama.cpp", "gguf_file"])?;
    no_model(&with("model", b"GGUF\x03\0\0\0")?, &["GGUF", "llama.cpp", "gguf_file"])?;
    no_model(&with("notes.txt", b"")?, &["a file", "directory"])?;

    // Directories without a config.json, by what else they have.
    for (file, contents, parts) in [
        ("adapter_config.json", r#"{"peft_type": "LORA"}"#, ["an adapter and no model", "Peft::load"]),
        ("adapter_config.json", r#"{"fine_tune_type": "lora", "num_layers": 4}"#, ["an adapter", "MLX"]),
        ("model.Q4_K_M.gguf", "GGUF", ["model.Q4_K_M.gguf", "gguf_file"]),
        ("params.json", "{}", ["Meta", "Hub"]),
        ("model_index.json", "{}", ["model_index.json", "diffusers"]),
        ("snapshots", "", ["cache", "snapshots"]),
        ("README.md", "", ["model.safetensors", "No such file"]),
    ] {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join(file), contents)?;
        no_model(dir.path(), &[parts.as_slice(), &["config.json"]].concat())?;
    }
    // A config.json beside it, and still no weights.
    let dir = copy("bert/base")?;
    std::fs::rename(dir.path().join(WEIGHTS), dir.path().join("model.gguf"))?;
    refused(
        "GGUF alone",
        open(dir.path(), Head::Stored),
        &[WEIGHTS, "not there", "model.gguf", "gguf_file"],
    )?;
    Ok(())
}

/// A head of another task is said to be one, and which is read here.
#[test]
fn heads_of_other_tasks() -> Result<()> {
    let _serial = serial();
    // A classifier on a decoder: a base as transformers saves it, without an output layer.
    let dir = tests::edited("llama", &json!({}))?;
    std::fs::copy(golden("cases/llama_seqcls/config.json"), dir.path().join("config.json"))?;
    let llama = |dir: &TempDir| hub::open(dir.path(), Device::Cpu, Head::Stored);
    edit_tensors(&dir.path().join(WEIGHTS), |all| {
        all.remove("lm_head.weight");
        all.insert("score.weight".into(), ids(9, [1, 32]));
    })?;
    let parts = ["config.json", "LlamaForSequenceClassification", "classes of texts", "LlamaForCausalLM"];
    refused("a reward model", llama(&dir), &parts)?;
    // Decoders without a head have names without `model.`.
    let dir = tests::edited("llama", &json!({ "architectures": ["LlamaModel"] }))?;
    edit_tensors(&dir.path().join(WEIGHTS), |all| {
        all.remove("lm_head.weight");
        let names = std::mem::take(all).into_iter();
        all.extend(names.map(|(name, t)| (name.trim_start_matches("model.").to_owned(), t)));
    })?;
    let parts = ["`lm_head.weight`", "LlamaModel", "no output layer", "LlamaForCausalLM"];
    refused("headless", llama(&dir), &parts)?;
    // Where the head is the word embedding, nothing is missing.
    edit_json(&dir.path().join("config.json"), |c| c["tie_word_embeddings"] = true.into())?;
    drop(llama(&dir)?);

    let dir = copy("bert/base")?;
    let says =
        |class: &str| edit_json(&dir.path().join("config.json"), |c| c["architectures"] = json!([class]));
    says("BertForTokenClassification")?;
    let parts =
        ["architectures", "BertForTokenClassification", "BertForSequenceClassification", "tokens", "fresh"];
    refused("tokens", open(dir.path(), Head::Stored), &parts)?;
    refused("tokens", open(dir.path(), Head::Classes(3)), &parts)?;
    ensure!(open(dir.path(), Head::Fresh(3))?.fresh.len() == 2, "the encoder alone");
    edit_tensors(&dir.path().join(WEIGHTS), |all| all.retain(|name, _| !name.starts_with("classifier")))?;
    says("BertModel")?;
    refused(
        "headless",
        open(dir.path(), Head::Stored),
        &["`classifier.weight`", "BertModel", "no head for classes", "fresh"],
    )?;
    says("BertForTokenClassification")?;
    ensure!(open(dir.path(), Head::Classes(5))?.fresh.len() == 2, "no head of tokens is there");
    edit_tensors(&dir.path().join(WEIGHTS), |all| all.retain(|name, _| !name.contains("pooler")))?;
    refused("no pooler", open(dir.path(), Head::Stored), &["bert.pooler", "BertForTokenClassification"])?;
    Ok(())
}

/// Ids without a column or a row are nobody's shape.
#[test]
fn ids_of_no_length() -> Result<()> {
    let _serial = serial();
    let empty = |shape: [i64; 2]| Batch::dense(Tensor::zeros(shape, (Kind::Int64, Device::Cpu)));
    fn all(family: &str, batch: &Batch) -> Result<()> {
        let dir = golden(family).join("base");
        let model = hub::open(&dir, Device::Cpu, Head::Stored)?.peft.view(&[])?;
        refused(family, model.forward(batch, Pass::eval()), &["ids of shape", "no token"])?;
        Ok(())
    }
    for batch in [empty([2, 0]), empty([0, 5]), empty([0, 0])] {
        for family in FAMILIES {
            all(family.model_type, &batch)?;
        }
        let tiny = crate::tiny()?.view(&[])?;
        refused("tiny", tiny.forward(&batch, Pass::eval()), &["ids of shape", "no token"])?;
    }
    Ok(())
}
