//! Vocabularies of another size.

use crate::{case, expected, llama, logits, text, tied};
use anyhow::{Context, Result, ensure};
use peft_core::io::tensors;
use peft_core::quant::Nf4Config;
use peft_core::{Batch, NewRows};
use peft_core::{hub, io};
use tch::{Device, Kind, Tensor};
use tests::{assert_bits, assert_close, refused, serial};

const CASE: &str = "resized_vocab_auto_saved";

/// The seed that transformers had gives the rows that it drew, and so the logits.
#[test]
fn rows_are_drawn_as_transformers_draws_them() -> Result<()> {
    let _serial = serial();
    let golden = tensors::read(case("resized.safetensors"))?;
    for (name, base) in [("llama", llama()?), ("tied", tied()?)] {
        tch::manual_seed(3);
        let peft = base.resized(101, NewRows::Drawn)?;
        let get = |what: &str| golden.get(&format!("{name}.{what}")).with_context(|| what.to_owned());
        let found = |key: &str| peft.base().find(key).with_context(|| key.to_owned());
        assert_close("words", &found("model.embed_tokens.weight")?, get("words")?, 1e-6)?;
        // New rows are the mean but for 3e-5 of noise: the noise is the same, too.
        let noise = |t: &Tensor| t.narrow(0, 96, 5) - t.narrow(0, 0, 96).mean_dim(0i64, false, None::<Kind>);
        let words = noise(&found("model.embed_tokens.weight")?);
        assert_close("the draws", &words, &noise(get("words")?), 1e-2)?;
        if name == "llama" {
            let head = found("lm_head.weight")?;
            assert_close("head", &head, get("head")?, 1e-6)?;
            assert_close("the head's draws", &noise(&head), &noise(get("head")?), 1e-2)?;
        } else {
            ensure!(peft.base().find("lm_head.weight").is_none(), "the head was untied");
        }
        let batch = Batch::dense(get("input_ids")?.copy());
        assert_close("logits", &logits(&peft, &[], &batch)?, get("logits")?, 1e-5)?;
    }
    Ok(())
}

/// PEFT's file has the whole embedding and head then: on the plain base it says so, and it can resize it.
#[test]
fn an_adapter_that_was_trained_on_a_larger_vocabulary() -> Result<()> {
    let _serial = serial();
    let words =
        ["adapter_model.safetensors", "[99, 32]", "[96, 32]", "the vocabulary was resized from 96 to 99"];
    refused("on the plain base", llama()?.load("a", case(CASE)), &words)?;
    let (batch, python) = expected(CASE)?;
    for base in [llama()?.resized_for(case(CASE))?, llama()?.resized(99, NewRows::Drawn)?] {
        let mut peft = base;
        peft.load("a", case(CASE))?;
        let found = logits(&peft, &["a"], &batch)?;
        assert_close("resized", &found, &python, 1e-5)?;
        assert_close("merged", &logits(&peft.merged(&["a"])?, &[], &batch)?, &found, 1e-5)?;
        let dir = tempfile::tempdir()?;
        peft.save("a", dir.path())?;
        let keys = |dir: &std::path::Path| -> Result<Vec<String>> {
            Ok(tensors::read(dir.join("adapter_model.safetensors"))?.into_keys().collect())
        };
        ensure!(keys(dir.path())? == keys(&case(CASE))?, "{:?}", keys(dir.path())?);
        let mut other = llama()?.resized_for(dir.path())?;
        other.load("a", dir.path())?;
        assert_bits("again", &logits(&other, &["a"], &batch)?, &found)?;
    }
    let words = ["no `model.embed_tokens.weight`", "does not say what the new rows"];
    refused("no embedding", llama()?.resized_for(case("init_kinds_eva")), &words)?;
    Ok(())
}

/// A resized model is a model: saved, opened, quantised, made smaller again.
fn travels(family: &str, vocab: i64) -> Result<()> {
    let base = crate::open(family)?;
    let batch = Batch::dense(Tensor::from_slice(&[5i64, 17, 2, 60, 33]).view([1, 5]));
    let before = logits(&base, &[], &batch)?;
    tch::manual_seed(5);
    let larger = base.resized(vocab, NewRows::Drawn)?;
    let causal = base.outline().dims.causal();
    let after = logits(&larger, &[], &batch)?;
    let old = |t: &Tensor| if causal { t.narrow(-1, 0, 96) } else { t.copy() };
    assert_close("old tokens", &old(&after), &before, 1e-6)?;
    let dir = tempfile::tempdir()?;
    hub::save(&larger, dir.path(), None)?;
    let config = io::read_json(dir.path().join("config.json"))?;
    ensure!(config["vocab_size"] == vocab, "{config}");
    let opened = hub::open(dir.path(), Device::Cpu, hub::Head::Stored)?.peft;
    assert_bits("from its file", &logits(&opened, &[], &batch)?, &after)?;
    let smaller = larger.resized(96, NewRows::Drawn)?;
    assert_bits("and back", &logits(&smaller, &[], &batch)?, &before)?;
    let packed = base.quantised(&Nf4Config::default())?;
    let (few, many) =
        (logits(&packed, &[], &batch)?, logits(&packed.resized(vocab, NewRows::Drawn)?, &[], &batch)?);
    assert_close("in 4 bits", &old(&many), &few, 1e-6)
}

#[test]
fn resized_models_travel() -> Result<()> {
    let _serial = serial();
    travels("llama", 103)?;
    travels("qwen2", 103)?;
    travels("gpt2", 103)?;
    travels("bert", 103)
}

#[test]
fn wrong_sizes_and_rows_are_named() -> Result<()> {
    let _serial = serial();
    let rows = |n: i64| Tensor::ones([n, 32], (Kind::Float, Device::Cpu));
    let given = |words: i64, head: Option<i64>| NewRows::Given { words: rows(words), head: head.map(rows) };
    let base = llama()?;
    refused("0", base.resized(0, NewRows::Drawn), &["vocab", "is 0"])?;
    refused(
        "few",
        base.resized(99, given(2, Some(3))),
        &["`model.embed_tokens.weight`", "[3, 32]", "[2, 32]"],
    )?;
    refused("no head", base.resized(99, given(3, None)), &["`lm_head.weight`", "[3, 32]", "none"])?;
    let larger = base.resized(99, given(3, Some(3)))?;
    let words = larger.base().find("model.embed_tokens.weight").context("words")?;
    assert_bits("given", &words.narrow(0, 96, 3), &rows(3))?;
    tied()?.resized(99, given(3, None))?;
    let said = text(&larger.resized_for(case(CASE)).map(|_| Vec::new())?);
    ensure!(said.is_empty());
    Ok(())
}
