//! Names of classes: of a model, of an adapter, and in their files.

use anyhow::{Context, Result, ensure};
use peft_core::hub::{self, Head, Options};
use peft_core::io::{self, IfExists, adapter};
use peft_core::methods::LoraConfig;
use peft_core::{Peft, TaskType};
use serde_json::json;
use tch::Device;
use tests::{golden, refused, serial};

const NAMES: [&str; 3] = ["cold", "tepid", "warm"];

fn open(options: impl Into<Options>) -> peft_core::Result<Peft> {
    Ok(hub::open(golden("bert/base"), Device::Cpu, options)?.peft)
}

/// With a head of its own, as every adapter for classes has it.
fn lora() -> LoraConfig {
    LoraConfig::new(2).targets(["query"]).task(TaskType::SeqCls)
}

/// Catches names that are lost on the way: model, adapter, file, another model, merged model, its file.
#[test]
fn an_adapter_takes_the_names_of_its_classes_along() -> Result<()> {
    let _serial = serial();
    let mut peft = open(Options::named(NAMES))?;
    ensure!(peft.outline().dims.classes == NAMES, "the model's");
    peft.add("a", lora())?;
    peft.add("headless", LoraConfig::new(2).targets(["query"]))?;
    let (dir, out) = (tempfile::tempdir()?, tempfile::tempdir()?);
    peft.save("a", dir.path())?;
    ensure!(adapter::classes(dir.path())? == NAMES, "the file's");
    peft.copy("a", "copy")?;
    ensure!(peft.classes(&["copy"])? == NAMES, "a copy's");

    // A model whose own names are none, or others.
    for base in [open(Head::Stored)?, open(Options::named(["x", "y", "z"]))?] {
        let own = base.outline().dims.classes.clone();
        let mut other = base;
        other.load("b", dir.path())?;
        other.add("headless", LoraConfig::new(2).targets(["query"]))?;
        ensure!(other.classes(&[])? == own && other.classes(&["headless"])? == own, "{own:?}");
        ensure!(other.classes(&["b", "headless"])? == NAMES, "{:?}", other.classes(&["b"])?);
        let merged = other.merged(&["b"])?;
        ensure!(merged.classes(&[])? == NAMES, "merged");
        hub::save_with(&merged, out.path(), None, IfExists::Replace)?;
        let config = io::read_json(out.path().join("config.json"))?;
        ensure!(config["id2label"] == json!({ "0": "cold", "1": "tepid", "2": "warm" }), "{config:#}");
        ensure!(config["label2id"]["warm"] == 2, "{config:#}");
    }

    // Without names there is no file, and an old one goes.
    let mut plain = open(Head::Stored)?;
    plain.add("a", lora())?;
    plain.save_with("a", dir.path(), IfExists::Replace)?;
    ensure!(
        !dir.path().join(adapter::CLASSES).exists() && adapter::classes(dir.path())?.is_empty(),
        "old names"
    );
    Ok(())
}

#[test]
fn wrong_names_are_refused() -> Result<()> {
    let _serial = serial();
    // The file's head has three classes.
    refused("two", open(Options::named(["a", "b"])), &["classifier", "[2, 32]", "[3, 32]"])?;
    refused("four", open(Head::Stored)?.named(&["a".into()]), &["1 names", "`bert`"])?;
    let llama = hub::open(golden("llama/base"), Device::Cpu, Options::named(["a"]));
    refused("no classifier", llama, &["1 names", "`llama`"])?;

    let mut peft = open(Options::named(NAMES))?;
    peft.add("a", lora())?;
    let dir = tempfile::tempdir()?;
    peft.save("a", dir.path())?;
    let path = dir.path().join(adapter::CLASSES);
    for wrong in [json!({ "0": "a", "2": "b" }), json!({ "0": 1 }), json!({ "one": "a" }), json!(["a"])] {
        std::fs::write(&path, wrong.to_string())?;
        refused(&wrong.to_string(), peft.load("b", dir.path()), &[adapter::CLASSES])?;
    }
    std::fs::write(&path, json!({ "0": "a", "1": "b" }).to_string())?;
    let error = refused("two", peft.load("b", dir.path()), &[adapter::CLASSES, "2 names", "3 classes"])?;
    ensure!(peft.names() == ["a"], "{error}: nothing is added");
    std::fs::remove_file(&path)?;
    peft.load("b", dir.path())?;
    ensure!(peft.classes(&["b"]).context("b")? == NAMES, "the model's, where the file has none");
    Ok(())
}
