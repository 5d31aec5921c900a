//! Hub model directories, whole, sharded and broken; files that are written whole or not at all.

use crate::{bert, copy, edit_json, edit_tensors, ids};
use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io::{tensors, write_atomically, write_json};
use peft_core::{Batch, Error, Model, Pass};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use tch::Device;
use tempfile::TempDir;
use tests::{assert_bits, golden, refused, serial};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn open(dir: &Path, head: Head) -> peft_core::Result<hub::Opened> {
    hub::open(dir, Device::Cpu, head)
}

fn refuse(what: &str, dir: &TempDir, parts: &[&str]) -> Result<Error> {
    let place = dir.path().display().to_string();
    refused(what, open(dir.path(), Head::Stored), &[parts, &[&place]].concat())
}

#[test]
fn a_directory_without_its_files() -> Result<()> {
    let dir = copy("bert/base")?;
    std::fs::remove_file(dir.path().join(WEIGHTS))?;
    refuse("no weights", &dir, &[WEIGHTS, INDEX, "not there"])?;
    std::fs::copy(golden("pickle/legacy.bin"), dir.path().join("pytorch_model.bin"))?;
    refuse("a pickle alone", &dir, &[WEIGHTS, "pytorch_model.bin", "pickle", "safetensors"])?;
    std::fs::write(dir.path().join("pytorch_model.bin"), "PK")?;
    refuse("half a pickle", &dir, &["pytorch_model.bin", "pickle", "fetch"])?;
    std::fs::remove_file(dir.path().join("config.json"))?;
    refuse("no config", &dir, &["config.json", "No such file"])?;
    refused("no directory", open(Path::new("nowhere"), Head::Stored), &["nowhere", "config.json"])?;
    Ok(())
}

/// Opens the golden base with its `config.json` changed.
fn with_config(edit: impl FnOnce(&mut Value), parts: &[&str]) -> Result<()> {
    let dir = copy("bert/base")?;
    edit_json(&dir.path().join("config.json"), edit)?;
    refuse("opening", &dir, &[parts, &["config.json"]].concat())?;
    Ok(())
}

#[test]
fn a_config_of_something_else() -> Result<()> {
    with_config(
        |c| c["model_type"] = "roberta".into(),
        &["model_type", "`roberta`", "BertForSequenceClassification"],
    )?;
    with_config(|c| drop(c.as_object_mut().map(|c| c.remove("model_type"))), &["model_type", "`bert`"])?;
    with_config(
        |c| drop(c.as_object_mut().map(|c| c.remove("hidden_size"))),
        &["hidden_size", "is missing"],
    )?;
    with_config(|c| c["hidden_act"] = "mish".into(), &["`mish`", "`gelu`"])?;
    let relative = "relative_key_query";
    with_config(|c| c["position_embedding_type"] = relative.into(), &["position_embedding_type", relative])?;
    with_config(|c| c["is_decoder"] = true.into(), &["is_decoder", "true"])
}

/// A size that cannot be is blamed itself.
#[test]
fn a_config_with_impossible_sizes() -> Result<()> {
    with_config(|c| c["num_attention_heads"] = 5.into(), &["hidden_size", "32", "num_attention_heads", "5"])?;
    with_config(|c| c["vocab_size"] = 0.into(), &["vocab_size", "0"])?;
    with_config(|c| c["num_hidden_layers"] = (-1).into(), &["num_hidden_layers", "-1"])
}

#[test]
fn a_config_that_does_not_fit_the_weights() -> Result<()> {
    let dir = copy("bert/base")?;
    edit_json(&dir.path().join("config.json"), |c| c["intermediate_size"] = 96.into())?;
    let name = "`bert.encoder.layer.0.intermediate.dense.weight`";
    let error = refuse("opening", &dir, &[WEIGHTS, name, "[64, 32]", "[96, 32]"])?;
    ensure!(matches!(error, Error::Shape { .. }), "{error:?}");
    Ok(())
}

/// The golden base in two shards.
fn sharded() -> Result<TempDir> {
    let dir = copy("bert/base")?;
    let all = tensors::read(dir.path().join(WEIGHTS))?;
    let mut shards = [BTreeMap::new(), BTreeMap::new()];
    let mut map = serde_json::Map::new();
    for (i, (name, t)) in (0..).zip(all) {
        map.insert(name.clone(), shard(i % 2).into());
        shards[i % 2].insert(name, t);
    }
    for (i, tensors) in (0..).zip(&shards) {
        peft_core::io::tensors::write(dir.path().join(shard(i)), tensors)?;
    }
    write_json(dir.path().join(INDEX), &json!({ "metadata": { "total_size": 97_984 }, "weight_map": map }))?;
    std::fs::remove_file(dir.path().join(WEIGHTS))?;
    Ok(dir)
}

fn shard(i: usize) -> String {
    format!("model-0000{}-of-00002.safetensors", i + 1)
}

#[test]
fn shards_are_the_single_file() -> Result<()> {
    let _serial = serial();
    let (one, two) = (bert()?, open(sharded()?.path(), Head::Stored)?);
    ensure!(two.unused.is_empty() && two.fresh.is_empty(), "{:?} {:?}", two.unused, two.fresh);
    let batch = Batch::dense(ids(96, [3, 8]));
    let run = |peft: &peft_core::Peft| peft.view(&[])?.forward(&batch, Pass::eval());
    assert_bits("logits", &run(&two.peft)?, &run(&one)?)?;
    let (one, two) = (one.base().tensors(), two.peft.base().tensors());
    ensure!(one.keys().eq(two.keys()), "other names");
    one.iter().try_for_each(|(name, t)| assert_bits(name, &two[name], t))
}

#[test]
fn shards_that_are_missing_or_wrong() -> Result<()> {
    let missing = sharded()?;
    std::fs::remove_file(missing.path().join(shard(1)))?;
    refuse("a missing shard", &missing, &[INDEX, &shard(1), "not there"])?;

    let empty = sharded()?;
    edit_tensors(&empty.path().join(shard(0)), |all| drop(all.remove("bert.pooler.dense.bias")))?;
    edit_tensors(&empty.path().join(shard(1)), |all| drop(all.remove("bert.pooler.dense.bias")))?;
    refuse("a listed tensor", &empty, &[INDEX, "`bert.pooler.dense.bias`", "no shard"])?;

    let none = sharded()?;
    edit_json(&none.path().join(INDEX), |i| *i = json!({ "metadata": {} }))?;
    refuse("no map", &none, &[INDEX, "weight_map"])?;
    Ok(())
}

#[test]
fn shards_outside_the_directory() -> Result<()> {
    let outside = golden("bert/base").join(WEIGHTS).display().to_string();
    for path in [
        "../model.safetensors",
        "sub/model.safetensors",
        "./../x.safetensors",
        "/model.safetensors",
        &outside,
    ] {
        let dir = sharded()?;
        edit_json(&dir.path().join(INDEX), |i| i["weight_map"]["classifier.bias"] = path.into())?;
        refuse(path, &dir, &[INDEX, &format!("`{path}`"), "beside it"])?;
    }
    Ok(())
}

/// The directory above is no file beside the index either.
#[test]
fn a_shard_that_is_a_directory() -> Result<()> {
    for path in ["..", ".", "/"] {
        let dir = sharded()?;
        edit_json(&dir.path().join(INDEX), |i| i["weight_map"]["classifier.bias"] = path.into())?;
        refuse(path, &dir, &[INDEX, &format!("`{path}`")])?;
    }
    Ok(())
}

/// As encoders are saved: names without `bert.`, LayerNorm's old ones, a pre-training head, a buffer; no classifier.
#[test]
fn an_encoder_with_a_pre_training_head() -> Result<()> {
    let _serial = serial();
    let dir = copy("bert/base")?;
    let unused =
        ["cls.predictions.bias", "cls.predictions.transform.dense.weight", "embeddings.position_ids"];
    edit_tensors(&dir.path().join(WEIGHTS), |all| {
        let renamed = std::mem::take(all).into_iter().filter(|(name, _)| !name.starts_with("classifier"));
        *all = renamed
            .map(|(name, t)| {
                let name = name.trim_start_matches("bert.").to_owned();
                (
                    name.replace("LayerNorm.weight", "LayerNorm.gamma")
                        .replace("LayerNorm.bias", "LayerNorm.beta"),
                    t,
                )
            })
            .collect();
        all.extend(unused.map(|name| (name.to_owned(), ids(9, [1, 64]))));
    })?;
    let parts = [WEIGHTS, "`classifier.weight`", "[3, 32]", "ask for a fresh one"];
    let error = refuse("without a head", &dir, &parts)?;
    ensure!(matches!(error, Error::Missing { .. }), "{error:?}");

    tch::manual_seed(1);
    let first = open(dir.path(), Head::Classes(5))?;
    ensure!(first.unused == unused, "unused {:?}", first.unused);
    ensure!(first.fresh == ["classifier.weight", "classifier.bias"], "fresh {:?}", first.fresh);
    let logits = first.peft.view(&[])?.forward(&Batch::dense(ids(96, [2, 6])), Pass::eval())?;
    ensure!(
        logits.size() == [2, 5]
            && first.peft.architecture().json().context("json")?["id2label"]
                .as_object()
                .is_some_and(|c| c.len() == 5),
        "{:?}",
        logits.size()
    );
    let head = |o: &hub::Opened| o.peft.base().find("classifier.weight").context("no classifier");
    tch::manual_seed(1);
    assert_bits("the same seed", &head(&open(dir.path(), Head::Classes(5))?)?, &head(&first)?)?;
    ensure!(!head(&open(dir.path(), Head::Classes(5))?)?.equal(&head(&first)?), "a head that is not drawn");

    // Everything but the head is the golden base.
    let golden = bert()?;
    for (name, t) in golden.base().tensors().iter().filter(|(name, _)| !name.starts_with("classifier")) {
        assert_bits(name, &first.peft.base().find(name).context(name.clone())?, t)?;
    }
    Ok(())
}

#[test]
fn a_head_of_another_size_is_refused() -> Result<()> {
    let _serial = serial();
    let dir = golden("bert/base");
    let parts = [WEIGHTS, "`classifier.weight`", "[3, 32]", "[7, 32]", "fresh"];
    let error = refused("7 classes", open(&dir, Head::Classes(7)), &parts)?;
    ensure!(matches!(error, Error::Shape { .. }), "{error:?}");
    let same = open(&dir, Head::Classes(3))?;
    ensure!(same.fresh.is_empty(), "a head that fits was drawn again: {:?}", same.fresh);
    for classes in [3, 7] {
        let new = open(&dir, Head::Fresh(classes))?;
        ensure!(new.fresh == ["classifier.weight", "classifier.bias"], "fresh {:?}", new.fresh);
        let head = new.peft.base().get("classifier.weight", &[classes, 32])?;
        ensure!(
            same.peft.base().find("classifier.weight").is_some_and(|old| !old.equal(&head)),
            "the old head"
        );
    }
    Ok(())
}

#[test]
fn a_head_without_classes_is_refused() -> Result<()> {
    for classes in [0, -1] {
        refused(
            "no classes",
            open(&golden("bert/base"), Head::Fresh(classes)),
            &["config.json", "num_labels", "positive"],
        )?;
    }
    Ok(())
}

#[test]
fn a_tensor_of_something_else_is_refused() -> Result<()> {
    let dir = copy("bert/base")?;
    edit_tensors(&dir.path().join(WEIGHTS), |all| {
        drop(all.insert("qa_outputs.weight".into(), ids(9, [2, 2])))
    })?;
    let error = refuse("one more", &dir, &[WEIGHTS, "`qa_outputs.weight`"])?;
    ensure!(matches!(error, Error::Unread { .. }), "{error:?}");
    // Two names for one tensor.
    edit_tensors(&dir.path().join(WEIGHTS), |all| {
        if let Some(t) = all.remove("qa_outputs.weight") {
            all.insert("pooler.dense.bias".into(), t);
        }
    })?;
    refuse("twice", &dir, &[WEIGHTS, "two tensors", "`bert.pooler.dense.bias`"])?;
    Ok(())
}

/// A write that fails half-way leaves the old file, and nothing beside it.
#[test]
fn a_killed_write_leaves_the_old_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("sub").join("file");
    let write = |bytes: &'static [u8], fails: bool| {
        write_atomically(&path, |file| {
            file.write_all(bytes).map_err(|error| Error::File { path: path.clone(), error })?;
            if fails { Err(Error::Input("the lights went out".into())) } else { Ok(()) }
        })
    };
    refused("the first write", write(b"half", true), &["the lights went out"])?;
    ensure!(!path.exists(), "half a file");
    write(b"old", false)?;
    refused("the second write", write(b"new, but only ha", true), &["the lights went out"])?;
    ensure!(std::fs::read(&path)? == b"old", "the old file is gone");
    let entries = std::fs::read_dir(dir.path().join("sub"))?.count();
    ensure!(entries == 1, "{entries} files in the directory");
    write(b"new", false)?;
    ensure!(std::fs::read(&path)? == b"new", "the new file is not there");
    Ok(())
}
