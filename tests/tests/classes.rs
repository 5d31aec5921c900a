//! Names of classes: of a model, of an adapter, and in their files.

use anyhow::{Context, Result, ensure};
use peft_core::combine::Combination;
use peft_core::hub::{self, Head, Options};
use peft_core::io::{self, IfExists, adapter};
use peft_core::methods::LoraConfig;
use peft_core::seam::Numerics;
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
    refused("no adapter", adapter::classes("nowhere"), &["nowhere/adapter_config.json", "no adapter"])?;
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

/// Catches a new adapter with the model's names in place of those that its head was trained with.
#[test]
fn names_go_with_the_head_that_they_are_of() -> Result<()> {
    let _serial = serial();
    let (mut peft, dir) = (open(Options::named(NAMES))?, tempfile::tempdir()?);
    peft.add("a", lora())?;
    // A LoRA at the head trains it as well as a copy does.
    peft.add("at the head", LoraConfig::new(2).targets(["query", "classifier"]))?;
    for name in ["a", "at the head"] {
        peft.save(name, dir.path().join(name))?;
        ensure!(adapter::classes(dir.path().join(name))? == NAMES, "{name}");
    }
    let others = ["x", "y", "z"];
    let mut other = open(Options::named(others))?;
    for name in ["a", "at the head"] {
        other.load(name, dir.path().join(name))?;
        other.to_lora(name, &format!("{name}, converted"), 2)?;
        ensure!(other.classes(&[&format!("{name}, converted")])? == NAMES, "{name}, converted");
    }
    other.add("headless", LoraConfig::new(2).targets(["query"]))?;
    other.combine("both", &[("a", 0.5), ("headless", 0.5)], Combination::Cat)?;
    ensure!(other.classes(&["both"])? == NAMES, "combined");
    other.to_lora("headless", "still headless", 2)?;
    other.save("still headless", dir.path().join("headless"))?;
    ensure!(adapter::classes(dir.path().join("headless"))?.is_empty(), "names without a head");

    // A head without names is not called as another one is.
    std::fs::remove_file(dir.path().join("a").join(adapter::CLASSES))?;
    other.load("nameless", dir.path().join("a"))?;
    for (active, expected) in
        [(["a", "nameless"], others), (["nameless", "a"], NAMES), (["a", "headless"], NAMES)]
    {
        ensure!(other.classes(&active)? == expected, "{active:?}: {:?}", other.classes(&active)?);
    }
    Ok(())
}

/// Names alone are other ones: the numerics stay, of a merged model too.
#[test]
fn a_model_with_names_computes_as_it_did() -> Result<()> {
    let _serial = serial();
    let exact = || Ok::<_, peft_core::Error>(open(Head::Stored)?.with_numerics(Numerics::Exact));
    ensure!(exact()?.named(&NAMES.map(str::to_owned))?.numerics() == Numerics::Exact, "named");
    let (mut named, dir) = (open(Options::named(NAMES))?, tempfile::tempdir()?);
    named.add("a", lora())?;
    named.save("a", dir.path())?;
    let mut peft = exact()?;
    peft.load("a", dir.path())?;
    let merged = peft.merged(&["a"])?;
    ensure!(merged.classes(&[])? == NAMES && merged.numerics() == Numerics::Exact, "merged");
    Ok(())
}

#[test]
fn classes_that_cannot_be_are_refused() -> Result<()> {
    let _serial = serial();
    for (options, words) in [
        (Options::named(["a", "b"]), &["2 names", "`llama`", "Head::Stored"] as &[&str]),
        (Head::Classes(2).into(), &["2 classes", "`llama`", "Head::Stored"]),
        (Head::Fresh(3).into(), &["3 classes", "`llama`", "Head::Stored"]),
    ] {
        refused("llama", hub::open(golden("llama/base"), Device::Cpu, options), words)?;
    }
    let none = Options::named([""; 0]);
    refused(
        "none",
        open(none.clone()),
        &["config.json", "num_labels", "0 classes", "positive", adapter::CLASSES],
    )?;
    refused("nowhere", hub::open("nowhere", Device::Cpu, none), &["nowhere", "is not there"])?;
    let two = Options { classes: vec!["a".into(), "b".into()], ..Head::Stored.into() };
    refused("two of three", open(two), &["2 names", "`bert`", "which has 3"])?;
    Ok(())
}
