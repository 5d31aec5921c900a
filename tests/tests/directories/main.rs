//! Model directories as they are in the wild, against transformers (`tests/golden/cases`): what a file says is done, or
//! named.

mod classes;
mod dtypes;
mod rope;
mod settings;
mod shards;

use anyhow::{Context, Result, ensure};
use peft_core::generate::{GenerateConfig, GenerationSettings};
use peft_core::hub;
use peft_core::hub::{Head, Opened, TokenIds};
use peft_core::io;
use peft_core::{Batch, Pass, Peft};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tests::{assert_bits, assert_close, edited, golden, serial};

const TOL: f64 = 1e-5;
const SHORT: [[i64; 8]; 2] = [[5, 17, 2, 40, 9, 90, 33, 3], [60, 61, 8, 8, 12, 77, 4, 50]];

/// A folder of `tests/golden/cases` with the weights of a golden base.
fn case(name: &str, base: &str) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for entry in std::fs::read_dir(golden("cases").join(name))? {
        let entry = entry?;
        std::fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
    }
    let weights = "model.safetensors";
    std::fs::copy(golden(base).join("base").join(weights), dir.path().join(weights))?;
    Ok(dir)
}

fn open(dir: &Path) -> peft_core::Result<Opened> {
    hub::open(dir, Device::Cpu, Head::Stored)
}

fn short() -> Batch {
    Batch::dense(Tensor::from_slice2(&SHORT))
}

/// One row beyond the 64 positions that the bases were trained with.
fn long() -> Batch {
    let ids = Tensor::arange(90, (Kind::Int64, Device::Cpu)) * 7;
    Batch::dense((ids.remainder(91) + 3).unsqueeze(0))
}

fn logits(peft: &Peft, batch: &Batch) -> Result<Tensor> {
    Ok(peft.view(&[])?.forward(batch, Pass::eval())?)
}

fn expected(name: &str) -> Result<Value> {
    Ok(io::read_json(golden("cases/cases.json"))?[name].take())
}

/// Warnings as a program prints them, with what each must say.
fn warned(found: &[peft_core::Warning], parts: &[&[&str]]) -> Result<()> {
    ensure!(found.len() == parts.len(), "{found:#?}");
    for (warning, parts) in found.iter().zip(parts) {
        let text = warning.to_string();
        ensure!(parts.iter().all(|part| text.contains(part)), "{parts:?} is not in: {text}");
        ensure!(text.lines().count() == 1, "several lines: {text}");
    }
    Ok(())
}

/// What changes no number: the logits are the golden base's, to the bit, and transformers' sums.
#[test]
fn what_a_configuration_may_say_beside() -> Result<()> {
    let _serial = serial();
    let plain = open(&golden("llama/base"))?;
    ensure!(plain.warnings.is_empty(), "{:?}", plain.warnings);
    for (name, parts) in [
        ("bom", &[] as &[&[&str]]),
        ("infinity", &[]),
        ("pad_minus_one", &[&["config.json", "torch_dtype", "float16", "float32"]]),
    ] {
        let opened = open(case(name, "llama")?.path()).context(name)?;
        warned(&opened.warnings, parts).context(name)?;
        for batch in [short(), long()] {
            assert_bits(name, &logits(&opened.peft, &batch)?, &logits(&plain.peft, &batch)?)?;
        }
    }
    Ok(())
}

/// All of a directory's JSON files are read alike.
#[test]
fn byte_order_marks_everywhere() -> Result<()> {
    let _serial = serial();
    let marked = |path: &Path| -> Result<()> {
        let text = std::fs::read(path)?;
        Ok(std::fs::write(path, [b"\xEF\xBB\xBF".as_slice(), &text].concat())?)
    };
    let dir = shards::directory("shard_dup", None)?;
    let generation = dir.path().join("generation_config.json");
    io::write_json(&generation, &json!({ "eos_token_id": 9, "repetition_penalty": 1.5 }))?;
    for file in ["config.json", "model.safetensors.index.json", "generation_config.json"] {
        marked(&dir.path().join(file))?;
    }
    let mut peft = open(dir.path())?.peft;
    let config = GenerationSettings::read(dir.path(), GenerateConfig::default())?.config;
    ensure!(config.processors.repetition_penalty == 1.5 && config.eos_token_ids == [9], "{config:?}");
    let adapter = tempfile::tempdir()?;
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(golden("llama/lora").join(file), adapter.path().join(file))?;
    }
    marked(&adapter.path().join("adapter_config.json"))?;
    peft.load("lora", adapter.path())?;
    Ok(())
}

fn sums(what: &str, found: &Tensor, expected: &Value) -> Result<()> {
    let sums: Vec<f64> = serde_json::from_value(expected.clone())?;
    let found = Tensor::stack(&[found.sum(Kind::Double), found.abs().sum(Kind::Double)], 0);
    assert_close(what, &found, &Tensor::from_slice(&sums), TOL)
}

#[test]
fn logits_are_transformers() -> Result<()> {
    let _serial = serial();
    for name in ["infinity", "yarn", "dynamic", "pad_minus_one"] {
        let (opened, expected) = (open(case(name, "llama")?.path())?, expected(name)?);
        sums(name, &logits(&opened.peft, &short())?, &expected["short"])?;
        sums(name, &logits(&opened.peft, &long())?, &expected["long"])?;
    }
    Ok(())
}

/// What is read is written again, special numbers as transformers writes them.
#[test]
fn what_is_read_is_saved() -> Result<()> {
    let _serial = serial();
    let out = tempfile::tempdir()?;
    let saved = |name: &str| -> Result<[Value; 2]> {
        let dir = case(name, "llama")?;
        hub::save_with(&open(dir.path())?.peft, out.path(), None, io::IfExists::Replace)?;
        let path = |dir: &Path| dir.join("config.json");
        Ok([io::read_json(path(out.path()))?, io::read_json(path(dir.path()))?])
    };
    let [found, read] = saved("infinity")?;
    ensure!(found == read && read["time_limit"] == json!({ "__float__": "Infinity" }), "{found:#}");
    for name in ["yarn", "dynamic", "bom"] {
        let [found, read] = saved(name)?;
        ensure!(found == read, "{found:#}\nexpected\n{read:#}");
    }
    Ok(())
}

/// −1 is none: rows are filled with what ends a text, and RoBERTa counts all tokens, from position 0 on.
#[test]
fn ids_below_zero_are_none() -> Result<()> {
    let _serial = serial();
    let read = |config: Value, generation: Option<Value>| -> Result<TokenIds> {
        let dir = tempfile::tempdir()?;
        io::write_json(dir.path().join("config.json"), &config)?;
        if let Some(json) = generation {
            io::write_json(dir.path().join("generation_config.json"), &json)?;
        }
        Ok(TokenIds::read(dir.path())?)
    };
    let ids = |eos: &[i64], pad| TokenIds { eos: eos.to_vec(), pad };
    ensure!(TokenIds::read(case("pad_minus_one", "llama")?.path())? == ids(&[1], 1), "the case");
    let none = json!({ "bos_token_id": -1, "eos_token_id": -1, "pad_token_id": -1 });
    ensure!(read(none.clone(), None)? == ids(&[], 0), "all none");
    ensure!(read(json!({ "eos_token_id": [4, -1, 5] }), None)? == ids(&[4, 5], 4), "one of several");
    ensure!(read(json!({ "eos_token_id": 7, "pad_token_id": 8 }), Some(none))? == ids(&[7], 8), "in both");

    // What transformers computes on the golden base with pad_token_id -1.
    let rows = [
        [0.8365461230278015, -0.6001566648483276, -0.19948355853557587],
        [0.8652044534683228, -0.31340429186820984, 0.06879661977291107],
    ];
    let opened = open(edited("roberta", &json!({ "pad_token_id": -1 }))?.path())?;
    assert_close("roberta", &logits(&opened.peft, &short())?, &Tensor::from_slice2(&rows), TOL)?;
    let bert = |pad: i64| -> Result<Tensor> {
        logits(&open(edited("bert", &json!({ "pad_token_id": pad }))?.path())?.peft, &short())
    };
    assert_bits("bert", &bert(-1)?, &bert(0)?)
}
