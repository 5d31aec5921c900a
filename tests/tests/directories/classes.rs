//! The classes of an encoder: how many there are and how they are called.

use crate::{TOL, case, expected, logits, open, short, warned};
use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io;
use peft_core::models::EncoderConfig;
use serde_json::{Value, json};
use tch::Tensor;
use tempfile::TempDir;
use tests::{assert_close, edited, refused, serial};

#[test]
fn classes_with_numbers_for_names() -> Result<()> {
    let _serial = serial();
    let dir = case("id2label_int", "bert")?;
    let opened = open(dir.path())?;
    warned(&opened.warnings, &[])?;
    ensure!(
        opened.peft.outline().dims.classes == ["0", "1", "2"],
        "{:?}",
        opened.peft.outline().dims.classes
    );
    let rows: Vec<Vec<f64>> = serde_json::from_value(expected("id2label_int")?["classes"].take())?;
    assert_close("logits", &logits(&opened.peft, &short())?, &Tensor::from_slice2(&rows), TOL)?;
    let out = tempfile::tempdir()?;
    hub::save(&opened.peft, out.path(), None)?;
    let json = io::read_json(out.path().join("config.json"))?;
    ensure!(json["id2label"] == json!({ "0": 0, "1": 1, "2": 2 }), "{json:#}");
    Ok(())
}

/// As transformers counts classes: `num_labels`, or the entries of `id2label` whatever their numbers, or 2.
#[test]
fn classes_are_counted_as_transformers_does() -> Result<()> {
    let gone = json!({ "id2label": null, "label2id": null });
    let with = |changes: Value| -> Result<TempDir> {
        let mut all = gone.clone();
        all.as_object_mut().context("fields")?.extend(changes.as_object().context("changes")?.clone());
        edited("bert", &all)
    };
    let labels = |dir: &TempDir| -> Result<(i64, Vec<String>)> {
        let EncoderConfig { num_labels, labels, .. } = tests::bert_config(dir.path(), None)?;
        Ok((num_labels, labels))
    };
    let none: [&str; 0] = [];
    for (changes, number, names, parts) in [
        (json!({ "id2label": { "2": "c", "0": "a", "1": "b" } }), 3, &["a", "b", "c"][..], &[] as &[&[&str]]),
        (
            json!({ "id2label": { "0": "a", "2": "b", "5": "c" } }),
            3,
            &["a", "LABEL_1", "b"],
            &[&["id2label", "0, 2, 5", "3 classes"]],
        ),
        (json!({ "num_labels": 3 }), 3, &none, &[]),
        (
            json!({ "num_labels": 3, "label2id": { "a": 0, "b": 1, "c": 2 } }),
            3,
            &none,
            &[&["label2id", "3 classes"]],
        ),
        (
            json!({ "num_labels": 3, "id2label": { "0": "a", "1": "b" } }),
            3,
            &none,
            &[&["id2label", "2 classes", "num_labels says 3"]],
        ),
        (json!({ "id2label": { "0": 0.5, "1": true, "2": null } }), 3, &["0.5", "true", "null"], &[]),
        (
            json!({ "num_labels": 3, "problem_type": "regression" }),
            3,
            &none,
            &[&["problem_type", "regression", "loss"]],
        ),
        (json!({ "num_labels": 3, "problem_type": "single_label_classification" }), 3, &none, &[]),
    ] {
        let dir = with(changes.clone())?;
        let found = labels(&dir)?;
        ensure!(found.0 == number && found.1 == names, "{changes}: {found:?}");
        warned(&open(dir.path())?.warnings, parts).with_context(|| changes.to_string())?;
    }
    // The file's head has three classes.
    for (changes, classes) in [
        (json!({ "id2label": { "0": "a", "2": "b" } }), 2),
        (json!({ "label2id": { "a": 0, "b": 1, "c": 2 } }), 2),
        (json!({}), 2),
        (json!({ "num_labels": 5, "id2label": { "0": "a", "1": "b", "2": "c" } }), 5),
    ] {
        let dir = with(changes.clone())?;
        ensure!(labels(&dir)?.0 == classes, "{changes}");
        let shape = format!("[{classes}, 32]");
        let parts = ["classifier.weight", "[3, 32]", &shape, "num_labels", "id2label", "config.json"];
        refused(&changes.to_string(), open(dir.path()), &parts)?;
    }
    for (changes, parts) in [
        (json!({ "id2label": {} }), ["id2label", "no class"]),
        (json!({ "id2label": { "a": "0" } }), ["id2label", "expected"]),
        (json!({ "id2label": ["a", "b", "c"] }), ["id2label", "map"]),
        (json!({ "num_labels": 3.0 }), ["num_labels", "3.0"]),
        (json!({ "num_labels": 0 }), ["num_labels", "0"]),
    ] {
        let opened = hub::architecture(with(changes.clone())?.path(), Head::Stored);
        refused(&changes.to_string(), opened, &parts)?;
    }
    Ok(())
}
