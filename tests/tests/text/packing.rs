//! Several texts in one row are learned as if each were alone.

use crate::folder;
use anyhow::{Context, Result, ensure};
use peft_core::generate::{GenerateConfig, generate};
use peft_core::hub::{self, Head};
use peft_core::io::{read_json, write_json};
use peft_core::models::TinyConfig;
use peft_core::seam::{Documents, KvCache};
use peft_core::text::{Example, Learn, Sequences, TextEncoder};
use peft_core::train::{Shuffle, next_token_loss};
use peft_core::{Batch, Model, Pass, Peft};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tests::{assert_close, limits, refused, serial};

/// Random texts, and prompts with their completions, of 2 to 20 tokens.
fn texts(seed: u64) -> Result<Sequences> {
    let words: Vec<&str> =
        "the cat dog sat ran on a mat far away is it was who what not and under".split(' ').collect();
    let some = |at: u64| -> String {
        let order = Shuffle::new(words.len(), seed).epoch(at);
        order[..order[0] + 1].iter().map(|word| words[*word]).collect::<Vec<_>>().join(" ")
    };
    let text = |at: u64| match at % 3 {
        0 => Example::Completion { prompt: "who is ".into(), completion: some(at) },
        _ => Example::Text(some(at)),
    };
    let all: Vec<Example> = (0..23).map(text).collect();
    let encoder = TextEncoder::open(folder("llama"), limits(96, 64, 0))?;
    Ok(encoder.examples(&all, Some(2), None, Learn::Answers)?)
}

/// The base of a family, with a sliding window where one is asked for.
fn open(family: &str, window: Option<i64>) -> Result<Peft> {
    let base = tests::golden(family).join("base");
    let Some(window) = window else { return Ok(hub::open(base, Device::Cpu, Head::Stored)?.peft) };
    let dir = tempfile::tempdir()?;
    std::fs::copy(base.join("model.safetensors"), dir.path().join("model.safetensors"))?;
    let mut config = read_json(base.join("config.json"))?;
    let fields = config.as_object_mut().context("fields")?;
    fields.insert("sliding_window".into(), json!(window));
    fields.insert("use_sliding_window".into(), json!(true));
    fields.insert("max_window_layers".into(), json!(1));
    write_json(dir.path().join("config.json"), &config)?;
    Ok(hub::open(dir.path(), Device::Cpu, Head::Stored)?.peft)
}

/// The summed loss of some rows, how many tokens it is of, and the gradient of the sum.
fn learned(
    peft: &Peft,
    active: &[&str],
    data: &Sequences,
    rows: &[usize],
) -> Result<(f64, i64, Vec<Tensor>)> {
    let (batch, labels) = data.batch(rows, Device::Cpu)?;
    let count = labels.narrow(1, 1, labels.size()[1] - 1).ne(-100).sum(Kind::Int64).int64_value(&[]);
    let loss = next_token_loss(&peft.view(active)?.forward(&batch, Pass::train())?, &labels)? * count;
    let trained: Vec<Tensor> = peft.trainable(active)?.into_iter().map(|(_, tensor)| tensor).collect();
    let gradients =
        if trained.is_empty() { Vec::new() } else { Tensor::run_backward(&[&loss], &trained, false, false) };
    Ok((loss.double_value(&[]), count, gradients))
}

/// Loss and gradients of packed rows are those of their texts, one by one.
fn equal(what: &str, peft: &Peft, active: &[&str], seed: u64) -> Result<()> {
    let texts = texts(seed)?;
    let packed = texts.packed(40)?;
    let all: Vec<usize> = (0..packed.len()).collect();
    let (loss, count, gradients) = learned(peft, active, &packed, &all)?;
    let mut alone = (0.0, 0, gradients.iter().map(Tensor::zeros_like).collect::<Vec<_>>());
    for text in 0..texts.len() {
        let (loss, count, gradients) = learned(peft, active, &texts, &[text])?;
        alone.0 += loss;
        alone.1 += count;
        for (sum, gradient) in alone.2.iter_mut().zip(gradients) {
            *sum += gradient;
        }
    }
    ensure!(count == alone.1, "{what}: {count} tokens count, and alone {}", alone.1);
    let (mean, expected) = (loss / count as f64, alone.0 / alone.1 as f64);
    ensure!((mean - expected).abs() < 1e-5 * expected, "{what}: {mean}, and alone {expected}");
    for (packed, alone) in gradients.iter().zip(&alone.2) {
        assert_close(what, &(packed / count), &(alone / count), 1e-5)?;
    }
    ensure!(
        active.is_empty() || gradients.iter().any(|g| g.abs().max().double_value(&[]) > 1e-4),
        "{what}: nothing"
    );
    Ok(())
}

#[test]
fn packed_texts_are_learned_as_if_alone() -> Result<()> {
    let _serial = serial();
    let adapters: &[(&str, Option<i64>, &[&str])] = &[
        (
            "llama",
            None,
            &["lora", "lora_mts", "dora", "ia3", "vera", "oft", "adaption_prompt", "x_trainable_tokens"],
        ),
        ("mistral", None, &["lora"]),
        ("mistral", Some(5), &["lora"]),
        ("qwen2", None, &["lora"]),
        ("qwen2", Some(3), &["lora"]),
        ("gpt2", None, &["lora", "lora_mts", "ln_tuning", "adaption_prompt"]),
    ];
    for (seed, (family, window, names)) in (1..).zip(adapters) {
        let mut peft = open(family, *window)?;
        equal(family, &peft, &[], seed)?;
        for name in *names {
            let path = tests::golden(family).join(name);
            peft.load(name, path).with_context(|| format!("{family}, {name}"))?;
            // Dropout would draw other numbers for other shapes.
            without_dropout(&peft, name)?;
            equal(&format!("{family}, {window:?}, {name}"), &peft, &[name], seed)?;
        }
    }
    Ok(())
}

fn without_dropout(peft: &Peft, name: &str) -> Result<()> {
    let config = peft.adapter_config(name)?.context("a configuration")?;
    let dropout =
        config.get("lora_dropout").or(config.get("vera_dropout")).and_then(|d| d.as_f64()).unwrap_or(0.0);
    ensure!(dropout == 0.0, "{name} has dropout {dropout}");
    Ok(())
}

/// Logits are those of each text alone, at every token: of texts beside others nothing is seen.
#[test]
fn logits_are_those_of_each_text() -> Result<()> {
    let _serial = serial();
    let texts = texts(7)?;
    let packed = texts.packed(64)?;
    for (family, window) in [("llama", None), ("gpt2", None), ("mistral", Some(4))] {
        let model = open(family, window)?.view(&[])?;
        for row in 0..packed.len() {
            let (batch, _) = packed.batch(&[row], Device::Cpu)?;
            let logits = model.forward(&batch, Pass::eval())?;
            let mut from = 0;
            for document in &packed.documents[row] {
                let (alone, _) = texts.batch(&[document.example], Device::Cpu)?;
                let expected = model.forward(&alone, Pass::eval())?;
                let found = logits.narrow(1, from, i64::try_from(document.tokens)?);
                assert_close(family, &found, &expected, 1e-5)?;
                from += i64::try_from(document.tokens)?;
            }
        }
    }
    // Learned positions begin again, so that a row may be longer than a model has of them; a text may not.
    let model = open("gpt2", None)?.view(&[])?;
    let ids = Tensor::full([1, 100], 5, (Kind::Int64, Device::Cpu));
    let rows = |lengths: &[i64]| -> Result<Batch> {
        Ok(Batch::dense(ids.copy()).packed(Documents::new(vec![lengths.to_vec()])?)?)
    };
    let _ = model.forward(&rows(&[64, 36])?, Pass::eval())?;
    refused("65 tokens", model.forward(&rows(&[65, 35])?, Pass::eval()), &["65 tokens", "64 positions"])?;
    Ok(())
}

/// Every text is there once and whole, in rows that are nearly full, and the same again.
#[test]
fn rows_are_filled() -> Result<()> {
    let texts = texts(3)?;
    let longest = texts.ids.iter().map(Vec::len).max().context("no text")?;
    for length in [longest, 25, 64] {
        let packed = texts.packed(length)?;
        ensure!(packed == texts.packed(length)?, "another packing");
        let mut found: Vec<usize> = packed.documents.concat().iter().map(|d| d.example).collect();
        found.sort_unstable();
        ensure!(found == (0..texts.len()).collect::<Vec<_>>(), "{found:?}");
        for (row, documents) in packed.documents.iter().enumerate() {
            let alone: Vec<usize> = documents.iter().map(|d| d.example).collect();
            ensure!(alone.is_sorted() && packed.ids[row].len() <= length, "{documents:?}");
            let ids: Vec<i64> = alone.iter().flat_map(|text| texts.ids[*text].clone()).collect();
            let learned: Vec<bool> = alone.iter().flat_map(|text| texts.learned[*text].clone()).collect();
            ensure!(packed.ids[row] == ids && packed.learned[row] == learned, "{documents:?}");
        }
        let tokens: usize = texts.ids.iter().map(Vec::len).sum();
        let least = tokens.div_ceil(length);
        // Best fit decreasing needs at most 11/9 of the fewest rows, and one.
        ensure!(
            packed.len() <= least * 11 / 9 + 1,
            "{} rows of {length}, and at least {least}",
            packed.len()
        );
        ensure!(packed.packed(length)?.documents.concat().len() == texts.len(), "packed again");
    }
    refused("too short", texts.packed(longest - 1), &["row ", "does not fit a packed row"])?;
    // What begins a text is not learned, and a batch of rows of one text each is as it always was.
    let (batch, labels) = texts.packed(64)?.batch(&[0], Device::Cpu)?;
    let documents = batch.documents.as_ref().context("no documents")?;
    let starts = documents.positions(batch.ids()?.size()[1], Device::Cpu)?.eq(0);
    ensure!(labels.masked_select(&starts).eq(-100).all().int64_value(&[]) == 1, "{labels:?}");
    ensure!(batch.next_token_labels()?.masked_select(&starts).eq(-100).all().int64_value(&[]) == 1, "labels");
    ensure!(
        texts.packed(longest)?.len() > 1 && texts.batch(&[0, 1], Device::Cpu)?.0.documents.is_none(),
        "one each"
    );
    Ok(())
}

#[test]
fn packed_rows_that_are_not_for_it() -> Result<()> {
    let ids = || Tensor::full([2, 6], 5, (Kind::Int64, Device::Cpu));
    let packed =
        || -> Result<Batch> { Ok(Batch::dense(ids()).packed(Documents::new(vec![vec![2, 4], vec![3]])?)?) };
    refused("no text", Documents::new(vec![vec![2], vec![]]), &["row 2 of 2"])?;
    refused("no token", Documents::new(vec![vec![0, 3]]), &["row 1 of 1", "a token at least"])?;
    let longer = Batch::dense(ids()).packed(Documents::new(vec![vec![7], vec![1]])?);
    refused("too long", longer, &["7 tokens", "[2, 6]"])?;
    let fewer = Batch::dense(ids()).packed(Documents::new(vec![vec![6]])?);
    refused("one row", fewer, &["1 rows", "[2, 6]"])?;

    let mut llama = open("llama", None)?;
    for adapter in ["prefix", "prompt", "ptuning"] {
        llama.load(adapter, tests::golden("llama").join(adapter))?;
        let found = llama.view(&[adapter])?.forward(&packed()?, Pass::eval());
        refused(adapter, found, &["virtual tokens", "packed"])?;
    }
    let model = llama.view(&[])?;
    let _ = model.forward(&packed()?, Pass::eval())?;
    let cache = KvCache::new();
    let found = model.forward(&packed()?, Pass { cache: Some(&cache), ..Pass::eval() });
    refused("a cache", found, &["packed", "cache"])?;
    refused(
        "generate",
        generate(&model, &packed()?, &GenerateConfig::default()),
        &["packed", "each row is one"],
    )?;
    for family in ["bert", "roberta"] {
        let found = open(family, None)?.view(&[])?.forward(&packed()?, Pass::eval());
        refused(family, found, &["packed", "causal"])?;
    }
    let tiny = TinyConfig::default();
    let tiny = Peft::new(tiny.init(Device::Cpu)?, tiny)?.view(&[])?;
    refused("tiny", tiny.forward(&packed()?, Pass::eval()), &["packed"])?;
    Ok(())
}
