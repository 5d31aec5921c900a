//! Texts without labels.

use crate::{folder, given};
use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::text::{Inputs, TextEncoder, pairs, texts};
use peft_core::{Model, Pass};
use tch::{Device, Tensor};
use tests::limits;
use tests::{assert_close, refused, serial};

/// Texts that are longer than the model are cut, counted and judged: in batches as one by one.
#[test]
fn long_texts_are_judged() -> Result<()> {
    let _serial = serial();
    let peft = hub::open(tests::golden("bert").join("base"), Device::Cpu, Head::Stored)?.peft;
    let encoder = hub::encoder(folder("bert"), &peft)?;
    let long = "the cat sat on a mat ".repeat(20);
    let file = given("new.txt", format!("the cat\n{long}\nis it red\n"))?;
    let inputs = encoder.inputs(&texts(&file)?)?;
    ensure!((inputs.len(), inputs.truncated, inputs.ids[1].len()) == (3, 1, 64), "{inputs:?}");
    let model = peft.view(&[])?;
    let logits = |rows: &[usize]| -> Result<Tensor> {
        Ok(model.forward(&inputs.batch(rows, Device::Cpu)?, Pass::eval())?)
    };
    let one_by_one = [0, 1, 2].iter().map(|row| logits(&[*row])).collect::<Result<Vec<_>>>()?;
    assert_close("logits", &logits(&[0, 1, 2])?, &Tensor::cat(&one_by_one, 0), 1e-5)?;
    refused("row 3", inputs.batch(&[3], Device::Cpu), &["beyond the 3"])?;
    Ok(())
}

#[test]
fn labels_need_not_be_there() -> Result<()> {
    let file = given(
        "test.jsonl",
        "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": -1, \"idx\": 0}\n{\"sentence1\": \"c\", \"sentence2\": \"d\"}",
    )?;
    ensure!(
        pairs(file.as_ref())? == [("a".into(), "b".into()), ("c".into(), "d".into())],
        "{:?}",
        pairs(file.as_ref())
    );
    let alone = given("alone.jsonl", r#"{"text": "a"}"#)?;
    refused("pairs", texts(&file), &["test.jsonl", "line 1", "a pair of texts", "`sentence2`"])?;
    let sst =
        given("sst.jsonl", "{\"sentence\": \"a\", \"label\": -1}\n{\"sentence\": \"b\", \"label\": -1}")?;
    ensure!(texts(sst.as_ref())? == ["a", "b"], "{:?}", texts(sst.as_ref()));
    refused("no pair", pairs(alone.as_ref()), &["line 1", "no pair", "`text`"])?;
    Ok(())
}

#[test]
fn a_text_without_a_token() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("tokenizer.json");
    let mut json = peft_core::io::read_json(folder("bert").join("tokenizer.json"))?;
    json.as_object_mut().context("fields")?.insert("post_processor".into(), serde_json::Value::Null);
    peft_core::io::write_json(&path, &json)?;
    let inputs: peft_core::Result<Inputs> =
        TextEncoder::open(dir.path(), limits(96, 64, 0))?.inputs(&["the", ""]);
    refused("nothing", inputs, &["text 2", "empty"])?;
    Ok(())
}
