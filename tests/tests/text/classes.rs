//! What a classifier learns: labels, and pairs of texts with their token types.

use crate::{case, folder, given, reference, rows};
use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::text::{Dataset, TextEncoder};
use peft_core::{Batch, Model, Pass};
use tch::{Device, Kind, Tensor};
use tests::limits;
use tests::{assert_close, refused, serial};

fn read(text: &str) -> Result<peft_core::Result<Dataset>> {
    Ok(Dataset::read(given("a.jsonl", text)?.as_ref()))
}

#[test]
fn labels_by_their_kind() -> Result<()> {
    let data = Dataset::read(case("label_float.jsonl"))?;
    ensure!(data.rows[0].label == "1" && data.labels() == ["0", "1"], "{data:?}");
    // Classes keep their numbers where there are ten.
    let rows: Vec<String> = (0..11).rev().map(|n| format!(r#"{{"text": "a", "label": {n}}}"#)).collect();
    let labels = read(&rows.join("\n"))??.labels();
    ensure!(labels == (0..11).map(|n| n.to_string()).collect::<Vec<_>>(), "{labels:?}");
    let mixed = read(
        "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\", \"label\": 1.0}\n{\"text\": \"a\", \"label\": -1}",
    )??;
    ensure!(mixed.labels() == ["-1", "1"], "{mixed:?}");
    let said = mixed.warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
    ensure!(said.len() == 1 && said[0].contains("label: is -1 in 1 of 3 rows"), "{said:?}");
    let text = "{\"text\": \"a\", \"label\": 0}\n{\"text\": \"a\", \"label\": ";
    for (label, parts) in [
        ("2.8", &["`label` is 2.8", "regression"][..]),
        ("[0, 1]", &["[0,1]", "several classes"]),
        ("{\"a\": 1}", &["`label` is {"]),
        ("null", &["no `label`", "`label` (null)"]),
        ("\"\"", &["`label` is empty"]),
    ] {
        refused(label, read(&format!("{text}{label}}}"))?, &[parts, &["a.jsonl", "line 2"]].concat())?;
    }
    let hidden =
        "{\"sentence\": \"a\", \"label\": -1, \"idx\": 0}\n{\"sentence\": \"b\", \"label\": -1, \"idx\": 1}";
    refused("a test set", read(hidden)?, &["-1", "GLUE", "hidden"])?;
    Ok(())
}

/// An array is no struct by position.
#[test]
fn strings_are_no_labelled_rows() -> Result<()> {
    refused("strings", Dataset::read(case("strings2.json")), &["strings2.json", "row 1", "no `label`"])?;
    refused(
        "a row",
        read(
            r#"{"text": "a", "label": "x"}
["the cat", "the dog"]"#,
        )?,
        &["line 2", "an array as a row"],
    )?;
    Ok(())
}

#[test]
fn pairs_have_glues_names() -> Result<()> {
    let data = Dataset::read(case("glue.jsonl"))?;
    let row = &data.rows[0];
    let found = (row.text.as_str(), row.pair.as_deref(), row.label.as_str());
    ensure!(found == ("the cat", Some("the dog"), "1") && data.warnings.is_empty(), "{data:?}");
    for (first, second) in [
        ("question1", "question2"),
        ("premise", "hypothesis"),
        ("question", "sentence"),
        ("text", "text_pair"),
    ] {
        let data = read(&format!(r#"{{"{first}": "a", "{second}": "b", "label": 0, "genre": "c"}}"#))??;
        ensure!(data.rows[0].pair.as_deref() == Some("b"), "{data:?}");
        ensure!(data.warnings.len() == 1 && data.warnings[0].field == "genre", "{data:?}");
    }
    let single = read(r#"{"sentence": "a", "label": 0}"#)??;
    ensure!(single.rows[0].text == "a" && single.rows[0].pair.is_none(), "{single:?}");
    let lost =
        "{\"premise\": \"a\", \"hypothesis\": \"b\", \"label\": 0}\n{\"premise\": \"a\", \"label\": 0}";
    refused("one alone", read(lost)?, &["line 2", "no `hypothesis`"])?;
    refused("premise alone", read(r#"{"premise": "a", "label": 0}"#)?, &["no `text`", "`premise`"])?;
    Ok(())
}

/// Ids, token types and logits of pairs, cut and whole, with and without adapters, are transformers' and PEFT's.
#[test]
fn pairs_are_transformers() -> Result<()> {
    let _serial = serial();
    let mut peft = hub::open(tests::golden("bert").join("base"), Device::Cpu, Head::Stored)?.peft;
    for adapter in ["lora", "prompt", "ptuning", "prefix"] {
        peft.load(adapter, tests::golden("bert").join(adapter))?;
    }
    for case in reference("pairs")?.as_array().context("cases")? {
        let pairs: Vec<(String, String)> = rows(&case["rows"])?;
        let longest: i64 = rows(&case["longest"])?;
        let inputs = TextEncoder::open(folder("bert"), limits(96, longest, 0))?.pairs(&pairs)?;
        ensure!(inputs.ids == rows::<Vec<Vec<i64>>>(&case["ids"])?, "{longest}: {:?}", inputs.ids);
        let types = inputs.token_types.as_ref().context("no types")?;
        ensure!(*types == rows::<Vec<Vec<i64>>>(&case["token_types"])?, "{longest}: {types:?}");
        ensure!(inputs.truncated == if longest == 16 { 3 } else { 0 }, "{} were cut", inputs.truncated);
        let batch = inputs.batch(&[0, 1, 2, 3, 4], Device::Cpu)?;
        for name in ["base", "lora", "prompt", "ptuning", "prefix"] {
            let model = peft.view(if name == "base" { &[] } else { std::slice::from_ref(&name) })?;
            let expected: Vec<Vec<f32>> = rows(&case[&format!("logits_{name}")])?;
            let expected = Tensor::from_slice2(&expected);
            assert_close(name, &model.forward(&batch, Pass::eval())?, &expected, 1e-5)?;
            let mask = batch.mask.as_ref().map(Tensor::copy);
            let untyped = Batch { mask, ..Batch::dense(batch.ids()?.copy()) };
            let without = model.forward(&untyped, Pass::eval())?;
            ensure!(!without.allclose(&expected, 1e-3, 1e-3, false), "{name}: the types change nothing");
        }
    }
    Ok(())
}

/// Labels go with the types, and texts alone have none.
#[test]
fn a_data_set_of_pairs() -> Result<()> {
    let encoder = TextEncoder::open(folder("bert"), limits(96, 64, 0))?;
    let data = read(
        "{\"premise\": \"the cat\", \"hypothesis\": \"a dog\", \"label\": 1}\n{\"premise\": \"a\", \"hypothesis\": \"\", \"label\": 0}",
    )??;
    let encoded = encoder.encode(&data, &data.labels())?;
    ensure!(encoded.labels == [1, 0] && encoded.ids[0] == [2, 5, 6, 3, 11, 7, 3], "{encoded:?}");
    let (batch, _) = encoded.batch(&[1, 0], Device::Cpu)?;
    let types = Vec::<Vec<i64>>::try_from(batch.token_types.context("no types")?)?;
    ensure!(types == [[0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]], "{types:?}");
    let alone = encoder.inputs(&["the cat"])?.batch(&[0], Device::Cpu)?;
    ensure!(alone.token_types.is_none(), "{alone:?}");
    // What transformers leaves out for a tokenizer is left out.
    let dir = tempfile::tempdir()?;
    std::fs::copy(folder("bert").join("tokenizer.json"), dir.path().join("tokenizer.json"))?;
    let settings = serde_json::json!({ "model_input_names": ["input_ids", "attention_mask"] });
    peft_core::io::write_json(dir.path().join("tokenizer_config.json"), &settings)?;
    let inputs = TextEncoder::open(dir.path(), limits(96, 64, 0))?.pairs(&[("a", "the")])?;
    ensure!(inputs.token_types.is_none(), "{inputs:?}");
    for longest in [3, 2] {
        let pairs = TextEncoder::open(folder("bert"), limits(96, longest, 0))
            .and_then(|e| e.pairs(&[("a", "the cat")]));
        refused("no room", pairs, &["tokenizer.json", "tokens to every"])?;
    }
    Ok(())
}

#[test]
fn token_types_that_do_not_fit() -> Result<()> {
    let ids = || Tensor::ones([1, 3], (Kind::Int64, Device::Cpu));
    let batch = |types: &[i64]| Batch::dense(ids()).typed(&[types.to_vec()]);
    let base = |family: &str| tests::golden(family).join("base");
    refused("too few", batch(&[0, 1]), &["[1, 2]", "[1, 3]"])?;
    let bert = hub::open(base("bert"), Device::Cpu, Head::Stored)?.peft.view(&[])?;
    refused("type 2", bert.forward(&batch(&[0, 1, 2])?, Pass::eval()), &["token type 2", "has 2"])?;
    let roberta = hub::open(base("roberta"), Device::Cpu, Head::Stored)?.peft.view(&[])?;
    refused("below 0", roberta.forward(&batch(&[0, -1, 1])?, Pass::eval()), &["token type -1", "has 2"])?;
    let llama = hub::open(base("llama"), Device::Cpu, Head::Stored)?.peft.view(&[])?;
    refused("llama", llama.forward(&batch(&[0, 1, 1])?, Pass::eval()), &["token types", "none"])?;
    Ok(())
}
