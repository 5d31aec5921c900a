//! Labelled text: JSON lines and tokenizers.

use crate::edit_json;
use anyhow::{Context, Result, ensure};
use peft_core::hub::TokenIds;
use peft_core::io::write_json;
use peft_core::text::{Dataset, TextEncoder, texts};
use peft_core::{Batch, Error};
use serde_json::json;
use std::path::PathBuf;
use tch::Device;
use tempfile::TempDir;
use tests::limits;
use tests::refused;

/// A directory with these files.
fn files(files: &[(&str, &str)]) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text)?;
    }
    Ok(dir)
}

/// Reads `train.jsonl` with these contents.
fn read(text: &str) -> Result<peft_core::Result<Dataset>> {
    let dir = files(&[("train.jsonl", text)])?;
    Ok(Dataset::read(dir.path().join("train.jsonl")))
}

#[test]
fn lines_that_are_wrong_are_named_by_their_number() -> Result<()> {
    let good = r#"{"text": "a b", "label": "x"}"#;
    for (line, parts) in [
        (r#"{"text": "a"}"#, &["no `label`"][..]),
        (r#"{"text": "a", "label": null}"#, &["no `label`"]),
        (r#"{"label": "x"}"#, &["no `text`"]),
        (r#"{"text": "a", "label": ["x"]}"#, &["`label`", r#"["x"]"#]),
        (r#"{"text": "a", "label": "x""#, &["EOF"]),
        ("nonsense", &["expected"]),
    ] {
        let found = read(&format!("{good}\n\n{good}\n{line}\n{good}\n"))?;
        // Blank lines count: the number is the editor's.
        let error = refused(line, found, &[parts, &["train.jsonl", "line 4"]].concat())?;
        ensure!(matches!(error, Error::Format { .. }), "{error:?}");
    }
    Ok(())
}

/// The JSON parser sees one line alone, and counts it as line 1.
#[test]
fn a_wrong_line_has_one_number() -> Result<()> {
    let text = "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": 7, \"label\": \"x\"}\n";
    let error =
        refused("a number", read(text)?, &["train.jsonl", "line 2", "expected a string"])?.to_string();
    ensure!(!error.contains("line 1"), "two line numbers: {error}");
    Ok(())
}

#[test]
fn files_without_rows() -> Result<()> {
    for text in ["", "\n\n  \n"] {
        refused("empty", read(text)?, &["train.jsonl", "no rows", "\"text\"", "\"label\""])?;
    }
    let none = PathBuf::from("nowhere/train.jsonl");
    refused("no file", Dataset::read(&none), &["nowhere/train.jsonl", "No such file"])?;
    Ok(())
}

#[test]
fn labels_are_strings_integers_or_booleans() -> Result<()> {
    let rows =
        [r#""b""#, "10", "9", "true", r#""b""#].map(|label| format!(r#"{{"text": "a", "label": {label}}}"#));
    let data = read(&rows.join("\n"))??;
    ensure!(data.labels() == ["10", "9", "b", "true"], "{:?}", data.labels());
    // 0.5 is a score and no class.
    refused("a fraction", read(r#"{"text": "a", "label": 0.5}"#)?, &["line 1", "`label`", "0.5"])?;
    Ok(())
}

/// A tokenizer of eleven words that gives `[CLS] words [SEP]`.
fn tokenizer() -> Result<TempDir> {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "a", "mat", "dog"];
    let vocab: serde_json::Map<_, _> = (0u32..).zip(words).map(|(id, w)| (w.to_owned(), id.into())).collect();
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    let whole = |id: &str| json!({ "SpecialToken": { "id": id, "type_id": 0 } });
    let sequence = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let dir = tempfile::tempdir()?;
    let tokenizer = json!({
        "version": "1.0",
        // A tokenizer file may ask for these; they are the model's business.
        "truncation": { "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0 },
        "padding": {
            "strategy": { "Fixed": 12 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"
        },
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [whole("[CLS]"), sequence, whole("[SEP]")],
            "pair": [whole("[CLS]"), sequence, whole("[SEP]")],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] }
            }
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" }
    });
    write_json(dir.path().join("tokenizer.json"), &tokenizer)?;
    Ok(dir)
}

fn data(rows: &[(&str, &str)]) -> Dataset {
    let rows = rows.iter().map(|(text, label)| peft_core::text::Row {
        text: (*text).to_owned(),
        pair: None,
        label: (*label).to_owned(),
    });
    Dataset { path: "test.jsonl".into(), rows: rows.collect(), warnings: Vec::new() }
}

fn labels() -> Vec<String> {
    ["x", "y"].map(str::to_owned).to_vec()
}

#[test]
fn texts_become_ids_and_padded_batches() -> Result<()> {
    let dir = tokenizer()?;
    let encoder = TextEncoder::open(dir.path(), limits(11, 64, 0))?;
    let encoded =
        encoder.encode(&data(&[("The cat sat on a mat", "y"), ("a zebra", "x"), ("", "y")]), &labels())?;
    ensure!(encoded.ids == [vec![2, 4, 5, 6, 7, 8, 9, 3], vec![2, 8, 1, 3], vec![2, 3]], "{:?}", encoded.ids);
    ensure!(encoded.labels == [1, 0, 1] && encoded.truncated == 0, "{encoded:?}");
    let (batch, classes) = encoded.batch(&[2, 1], Device::Cpu)?;
    let rows = |t: &tch::Tensor| -> Result<Vec<Vec<i64>>> { Ok(Vec::try_from(t)?) };
    ensure!(rows(batch.ids()?)? == [[2, 3, 0, 0], [2, 8, 1, 3]], "{:?}", rows(batch.ids()?)?);
    ensure!(rows(batch.mask.as_ref().context("no mask")?)? == [[1, 1, 0, 0], [1, 1, 1, 1]], "mask");
    ensure!(Vec::<i64>::try_from(&classes)? == [1, 0], "{classes:?}");
    ensure!(encoded.batch(&[0], Device::Cpu)?.0.mask.is_none(), "a mask without padding");
    refused("row 3", encoded.batch(&[0, 3], Device::Cpu), &["a row beyond the 3"])?;
    Ok(())
}

#[test]
fn texts_that_are_cut_are_counted() -> Result<()> {
    let dir = tokenizer()?;
    let rows = data(&[
        ("the cat sat on a mat", "x"),
        ("the cat", "y"),
        ("the dog sat on", "x"),
        ("the dog sat", "x"),
    ]);
    let encoded = TextEncoder::open(dir.path(), limits(11, 5, 0))?.encode(&rows, &labels())?;
    ensure!(encoded.truncated == 2, "{} of 4 texts were cut", encoded.truncated);
    ensure!(encoded.ids.iter().map(Vec::len).eq([5, 4, 5, 5]), "{:?}", encoded.ids);
    ensure!(encoded.ids[0] == [2, 4, 5, 6, 3], "the end mark is cut off: {:?}", encoded.ids[0]);
    Ok(())
}

/// Fewer positions than the tokenizer adds marks: an error, and no panic.
#[test]
fn no_room_for_a_word() -> Result<()> {
    let dir = tokenizer()?;
    for positions in [2, 1, 0, -1] {
        let encoded = std::panic::catch_unwind(|| {
            TextEncoder::open(dir.path(), limits(11, positions, 0))?
                .encode(&data(&[("the cat", "x")]), &labels())
        });
        let encoded = encoded.ok().with_context(|| format!("{positions} positions: panicked"))?;
        if let Ok(encoded) = encoded {
            let length = encoded.ids[0].len() as i64;
            ensure!(length <= positions, "{positions} positions: {length} tokens");
        }
    }
    Ok(())
}

#[test]
fn an_unknown_label_has_its_row() -> Result<()> {
    let dir = tokenizer()?;
    let encoder = TextEncoder::open(dir.path(), limits(11, 64, 0))?;
    let second = data(&[("the cat", "x"), ("the dog", "z")]);
    let parts = ["test.jsonl", "row 2", "`z`", "training data", "x, y"];
    let error = refused("label z", encoder.encode(&second, &labels()), &parts)?;
    ensure!(matches!(error, Error::Format { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_tokenizer_with_more_words_than_the_model() -> Result<()> {
    let dir = tokenizer()?;
    let encoder = TextEncoder::open(dir.path(), limits(10, 64, 0))?;
    encoder.encode(&data(&[("the cat", "x")]), &labels())?;
    let dog = encoder.encode(&data(&[("the cat", "x"), ("the dog", "x")]), &labels());
    refused("dog", dog, &["tokenizer.json", "token id 10", "vocabulary of 10"])?;
    Ok(())
}

#[test]
fn tokenizers_that_are_not_there_or_broken() -> Result<()> {
    let dir = files(&[("vocab.txt", "a\nb\n")])?;
    refused(
        "none",
        TextEncoder::open(dir.path(), limits(11, 64, 0)),
        &["tokenizer.json", "vocab.txt", "not there"],
    )?;
    let dir = tokenizer()?;
    edit_json(&dir.path().join("tokenizer.json"), |t| t["model"]["type"] = "Telepathy".into())?;
    let error = refused("broken", TextEncoder::open(dir.path(), limits(11, 64, 0)), &["tokenizer.json"])?;
    ensure!(matches!(error, Error::Format { .. }), "{error:?}");
    Ok(())
}

#[test]
fn texts_of_a_file() -> Result<()> {
    let dir = files(&[
        ("a.jsonl", "{\"text\": \"the cat\", \"more\": 1}\n\n{\"text\": \"a\\nmat\"}\n"),
        ("a.txt", "the cat\n  \n {\"text\"\n"),
        ("b.json", "{\"text\": \"a\"}\n{\"label\": \"a\"}\n"),
        ("c.txt", "\n"),
    ])?;
    let read = |name: &str| texts(dir.path().join(name));
    ensure!(read("a.jsonl")? == ["the cat", "a\nmat"], "JSON lines");
    ensure!(read("a.txt")? == ["the cat", " {\"text\""], "lines");
    refused("no text", read("b.json"), &["b.json", "line 2", "no `text`"])?;
    refused("nothing", read("c.txt"), &["c.txt", "no rows", "one text a line"])?;
    Ok(())
}

/// The end is put behind a text that is whole and has none; padding has no label.
#[test]
fn texts_become_batches_for_a_causal_model() -> Result<()> {
    let dir = tokenizer()?;
    let encoder = TextEncoder::open(dir.path(), limits(11, 6, 0))?;
    let data = encoder.sequences(&["the cat", "the cat sat on a mat", "", "the cat sat"], Some(10))?;
    let expected = [vec![2, 4, 5, 3, 10], vec![2, 4, 5, 6, 7, 3], vec![2, 3, 10], vec![2, 4, 5, 6, 3, 10]];
    ensure!(data.ids == expected && data.truncated == 1, "{data:?}");
    ensure!(encoder.sequences(&["a"], Some(3))?.ids == [[2, 8, 3]], "an end after an end");
    let (batch, labels) = data.batch(&[2, 0], Device::Cpu)?;
    ensure!(Vec::<Vec<i64>>::try_from(batch.ids()?)? == [[2, 3, 10, 0, 0], [2, 4, 5, 3, 10]], "{batch:?}");
    ensure!(Vec::<Vec<i64>>::try_from(&labels)? == [[2, 3, 10, -100, -100], [2, 4, 5, 3, 10]], "{labels:?}");

    let long = "the cat sat on a mat";
    ensure!(encoder.ids(long)? == [2, 4, 5, 6, 7, 8, 9, 3], "a prompt is cut: {:?}", encoder.ids(long)?);
    ensure!(encoder.text(&encoder.ids(long)?)? == long, "{}", encoder.text(&encoder.ids(long)?)?);
    refused("below 0", encoder.text(&[4, -1]), &["-1"])?;
    refused("the end", encoder.sequences(&["the cat"], Some(11)), &["token id 11", "vocabulary of 11"])?;
    refused("beyond", TextEncoder::open(dir.path(), limits(5, 6, 0))?.ids("the cat"), &["token id 5"])?;
    Ok(())
}

#[test]
fn nothing_to_predict_and_nothing_to_pad() -> Result<()> {
    let dir = tokenizer()?;
    edit_json(&dir.path().join("tokenizer.json"), |t| t["post_processor"] = serde_json::Value::Null)?;
    let encoder = TextEncoder::open(dir.path(), limits(11, 6, 0))?;
    refused("one token", encoder.sequences(&["the cat", "the"], None), &["text 2", "nothing to predict"])?;
    encoder.sequences(&["the cat", "the"], Some(10))?;
    refused("no row", Batch::padded::<Vec<i64>>(&[], 0, Device::Cpu), &["without rows"])?;
    refused("no id", Batch::padded(&[vec![1], vec![]], 0, Device::Cpu), &["row 2 of 2", "no token"])?;
    Ok(())
}

#[test]
fn token_ids_of_a_directory() -> Result<()> {
    let read = |generation: Option<&str>, config: &str| -> Result<peft_core::Result<TokenIds>> {
        let dir = files(&[("config.json", config)])?;
        if let Some(text) = generation {
            std::fs::write(dir.path().join("generation_config.json"), text)?;
        }
        Ok(TokenIds::read(dir.path()))
    };
    let both = r#"{"eos_token_id": 2, "pad_token_id": null}"#;
    ensure!(read(None, both)?? == TokenIds { eos: vec![2], pad: 2 }, "padding is the end");
    let more = r#"{"eos_token_id": [5, 6], "pad_token_id": 7}"#;
    ensure!(read(Some(more), both)?? == TokenIds { eos: vec![5, 6], pad: 7 }, "generation's come first");
    ensure!(read(Some("{}"), more)?? == TokenIds { eos: vec![5, 6], pad: 7 }, "the model's");
    ensure!(read(None, "{}")?? == TokenIds::default(), "none");
    refused("words", read(None, r#"{"eos_token_id": "</s>"}"#)?, &["config.json", "eos_token_id", "</s>"])?;
    Ok(())
}

fn family_of(dir: impl AsRef<std::path::Path>) -> peft_core::Result<String> {
    Ok(peft_core::hub::architecture(dir, peft_core::hub::Head::Stored)?.dims().model_type)
}

#[test]
fn the_family_of_a_directory() -> Result<()> {
    ensure!(family_of(tests::golden("mistral").join("base"))? == "mistral", "mistral");
    let dir = files(&[("config.json", r#"{"model_type": "t5"}"#)])?;
    refused("t5", family_of(dir.path()), &["config.json", "model_type", "`t5`", "llama"])?;
    let dir = files(&[("config.json", r#"{"hidden_size": 32}"#)])?;
    refused("no type", family_of(dir.path()), &["config.json", "model_type", "missing", "llama"])?;
    refused("nowhere", family_of("nowhere"), &["nowhere/config.json"])?;
    let adapter = tests::golden("mistral").join("lora");
    refused("an adapter", family_of(&adapter), &["config.json", "this is an adapter and no model"])?;
    Ok(())
}
