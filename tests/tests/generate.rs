//! Causal models on padded batches, with and without a cache, and what they say: against transformers and PEFT
//! (`tests/golden/generate`) and against themselves.

use anyhow::{Context, Result, ensure};
use peft_core::generate::{GenerateConfig, GenerationSettings, KvCache, Sampling, generate};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::methods;
use peft_core::methods::{LoraConfig, PrefixTuningConfig, PromptTuningConfig};
use peft_core::{Batch, Model, Pass, Peft, io};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tests::{assert_bits, assert_close, edited, golden, refused, serial};

const TOL: f64 = 1e-5;

/// A golden base with its `config.json` changed.
fn base(name: &str, changes: &Value) -> Result<Peft> {
    let dir = edited(name, changes)?;
    Ok(hub::open(dir.path(), Device::Cpu, Head::Stored)?.peft)
}

fn matrix(value: &Value) -> Result<Tensor> {
    let rows: Vec<Vec<i64>> = serde_json::from_value(value.clone())?;
    Ok(Tensor::from_slice2(&rows))
}

fn numbers(value: &Value) -> Result<Tensor> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone())?;
    Ok(Tensor::from_slice2(&rows))
}

/// One case of `cases.json`.
fn greedy(case: &Value) -> Result<()> {
    let name = case["base"].as_str().context("base")?;
    let dir = edited(name, &case["changes"])?;
    let mut peft = hub::open(dir.path(), Device::Cpu, Head::Stored)?.peft;
    let active: &[&str] = match case["adapter"].as_str() {
        Some(dir) => {
            peft.load("golden", golden(dir))?;
            &["golden"]
        }
        None => &[],
    };
    let model = peft.view(active)?;
    let (ids, mask) = (matrix(&case["ids"])?, matrix(&case["mask"])?);
    let batch = Batch::masked(ids, mask.copy());

    let logits = model.forward(&batch, Pass::eval())?;
    let length = mask.size()[1];
    let logits = logits.narrow(1, logits.size()[1] - length, length);
    let real = mask.unsqueeze(-1).to_kind(Kind::Float);
    let mean = (&logits * &real).sum_dim_intlist(1, false, Kind::Float)
        / real.sum_dim_intlist(1, false, Kind::Float);
    assert_close("last logits", &logits.select(1, -1), &numbers(&case["last"])?, TOL)?;
    assert_close("mean logits", &mean, &numbers(&case["mean"])?, TOL)?;

    let expected = matrix(&case["greedy"])?;
    if let Some(settings) = case["settings"].as_object() {
        let mut settings = settings.clone();
        settings.insert("eos_token_id".into(), case["ends"].clone());
        io::write_json(dir.path().join("generation_config.json"), &settings.into())?;
    }
    let defaults = GenerateConfig { max_new_tokens: 12, ..GenerateConfig::default() };
    let read = GenerationSettings::read(dir.path(), defaults)?;
    ensure!(read.warnings.is_empty(), "{:?}", read.warnings);
    let config = GenerateConfig {
        eos_token_ids: serde_json::from_value(case["ends"].clone())?,
        pad_token_id: case["pad"].as_i64().context("pad")?,
        ..read.config
    };
    assert_bits("greedy", &generate(&model, &batch, &config)?, &expected)?;
    let slow = GenerateConfig { use_cache: false, ..config };
    let expected = if case["slow"].is_null() { expected } else { matrix(&case["slow"])? };
    assert_bits("without a cache", &generate(&model, &batch, &slow)?, &expected)
}

#[test]
fn greedy_text_is_transformers() -> Result<()> {
    let _serial = serial();
    let cases = io::read_json(golden("generate/cases.json"))?;
    for case in cases.as_array().context("cases")? {
        greedy(case).with_context(|| case["name"].to_string())?;
    }
    Ok(())
}

const ROWS: [i64; 4] = [9, 2, 6, 1];

/// Random rows of the lengths above, padded on the left or on the right.
fn padded(left: bool) -> Batch {
    let length = ROWS[0];
    let at = Tensor::arange(length, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let lengths = Tensor::from_slice(&ROWS).unsqueeze(1);
    let mask = if left { at.ge_tensor(&(length - lengths)) } else { at.lt_tensor(&lengths) };
    let mask = mask.to_kind(Kind::Int64);
    tch::manual_seed(3);
    let rows: Vec<Tensor> =
        ROWS.iter().map(|n| Tensor::randint(96, [*n], (Kind::Int64, Device::Cpu))).collect();
    let rows: Vec<Tensor> = rows
        .iter()
        .map(|row| {
            let pads = Tensor::zeros([length - row.size()[0]], (Kind::Int64, Device::Cpu));
            if left { Tensor::cat(&[&pads, row], 0) } else { Tensor::cat(&[row, &pads], 0) }
        })
        .collect();
    Batch::masked(Tensor::stack(&rows, 0), mask)
}

/// The real tokens of row `i`, alone.
fn alone(batch: &Batch, i: i64) -> Result<Batch> {
    let mask = batch.mask.as_ref().context("no mask")?.get(i).to_kind(Kind::Bool);
    Ok(Batch::dense(batch.ids()?.get(i).masked_select(&mask).unsqueeze(0)))
}

/// Runs a check on every causal subject: plain, windowed, tied or not.
fn everywhere(
    llama: impl FnOnce(Peft) -> Result<()>,
    gpt2: impl FnOnce(Peft) -> Result<()>,
    mistral: impl FnOnce(Peft) -> Result<()>,
) -> Result<()> {
    let _serial = serial();
    llama(base("llama", &json!({}))?).context("llama")?;
    gpt2(base("gpt2", &json!({}))?).context("gpt2")?;
    mistral(base("mistral", &json!({ "sliding_window": 4 }))?).context("mistral")
}

fn rows_alone(peft: Peft) -> Result<()> {
    let model = peft.view(&[])?;
    for left in [true, false] {
        let batch = padded(left);
        let together = model.forward(&batch, Pass::eval())?;
        for (i, &n) in (0..).zip(&ROWS) {
            let own = model.forward(&alone(&batch, i)?, Pass::eval())?.squeeze_dim(0);
            let start = if left { ROWS[0] - n } else { 0 };
            assert_close(&format!("row {i}"), &together.get(i).narrow(0, start, n), &own, TOL)?;
        }
    }
    Ok(())
}

#[test]
fn a_padded_row_is_what_it_is_alone() -> Result<()> {
    everywhere(rows_alone, rows_alone, rows_alone)
}

/// A text in pieces of several sizes, through a cache, has the logits of the whole.
fn in_pieces(mut peft: Peft) -> Result<()> {
    let tokens = 3;
    let random = json!({ "peft_type": "LORA", "init_lora_weights": false });
    peft.add("lora", methods::from_json(random, "a test")?)?;
    peft.add("prompt", PromptTuningConfig { num_virtual_tokens: tokens, ..Default::default() })?;
    peft.add("prefix", PrefixTuningConfig { num_virtual_tokens: tokens, ..Default::default() })?;
    for (name, config) in [
        ("p-tuning", json!({ "peft_type": "P_TUNING", "num_virtual_tokens": tokens })),
        (
            "projected",
            json!({ "peft_type": "PREFIX_TUNING", "num_virtual_tokens": tokens, "prefix_projection": true }),
        ),
        ("adaption", json!({ "peft_type": "ADAPTION_PROMPT", "adapter_len": tokens, "adapter_layers": 2 })),
        (
            "gated",
            json!({ "peft_type": "ZERO_INIT_ATTENTION", "num_virtual_tokens": tokens, "gate": "sigmoid" }),
        ),
    ] {
        peft.add(name, methods::from_json(config, "a test")?)?;
    }
    for (name, gate) in peft.params("adaption")?.tensors().into_iter().filter(|(n, _)| n.ends_with("gate")) {
        peft.params("adaption")?.assign(&name, &(gate.detach() + 0.7))?;
    }
    for active in [
        &[] as &[&str],
        &["lora"],
        &["prompt"],
        &["prefix"],
        &["prompt", "prefix", "lora"],
        &["p-tuning"],
        &["projected"],
        &["adaption"],
        &["gated"],
        &["p-tuning", "adaption", "projected", "gated", "lora"],
    ] {
        let model = peft.view(active)?;
        for batch in [padded(true), Batch::dense(padded(true).ids()?.copy())] {
            let _guard = tch::no_grad_guard();
            let whole = model.forward(&batch, Pass::eval())?;
            let words = batch.ids()?.size()[1];
            let whole = whole.narrow(1, whole.size()[1] - words, words);
            let cache = KvCache::new();
            let mut at = 0;
            for piece in [3, 1, 4, 1] {
                let ids = batch.ids()?.narrow(1, at, piece);
                let mask = batch.mask.as_ref().map(|m| m.narrow(1, 0, at + piece));
                let pass = Pass { cache: Some(&cache), ..Pass::eval() };
                let logits = model.forward(&Batch { mask, ..Batch::dense(ids) }, pass)?;
                let logits = logits.narrow(1, logits.size()[1] - piece, piece);
                let real = batch.mask.as_ref().map(|m| m.narrow(1, at, piece).unsqueeze(-1));
                let masked = |t: Tensor| if let Some(m) = &real { t * m } else { t };
                let (found, expected) = (masked(logits), masked(whole.narrow(1, at, piece)));
                assert_close(&format!("{active:?} from {at} on"), &found, &expected, TOL)?;
                at += piece;
            }
        }
    }
    Ok(())
}

#[test]
fn a_cache_changes_nothing() -> Result<()> {
    everywhere(in_pieces, in_pieces, in_pieces)
}

/// Padded left, padded right, and row by row: the same text.
fn padding(peft: Peft) -> Result<()> {
    let model = peft.view(&[])?;
    let config = GenerateConfig { max_new_tokens: 8, ..GenerateConfig::default() };
    let left = generate(&model, &padded(true), &config)?;
    assert_bits("padded right", &generate(&model, &padded(false), &config)?, &left)?;
    for i in 0..4 {
        let own = generate(&model, &alone(&padded(true), i)?, &config)?;
        assert_bits(&format!("row {i}"), &own, &left.narrow(0, i, 1))?;
    }
    Ok(())
}

#[test]
fn padding_changes_no_text() -> Result<()> {
    everywhere(padding, padding, padding)
}

fn sampled(sampling: Sampling) -> GenerateConfig {
    GenerateConfig { max_new_tokens: 10, sampling: Some(sampling), ..GenerateConfig::default() }
}

#[test]
fn sampling_at_its_limits_is_greedy() -> Result<()> {
    let _serial = serial();
    let peft = base("llama", &json!({}))?;
    let (model, batch) = (peft.view(&[])?, padded(true));
    let greedy = generate(&model, &batch, &GenerateConfig { max_new_tokens: 10, ..Default::default() })?;
    for limit in [
        Sampling { top_k: Some(1), ..Default::default() },
        Sampling { top_p: Some(1e-9), ..Default::default() },
        Sampling { temperature: 1e-6, ..Default::default() },
    ] {
        assert_bits(&format!("{limit:?}"), &generate(&model, &batch, &sampled(limit))?, &greedy)?;
    }
    Ok(())
}

/// A seed means one text, with and without a cache; it draws nothing from libtorch's generator.
#[test]
fn sampling_is_its_seeds_alone() -> Result<()> {
    let _serial = serial();
    let peft = base("llama", &json!({}))?;
    let (model, batch) = (peft.view(&[])?, padded(true));
    let at = |seed| {
        sampled(Sampling { temperature: 2.0, top_k: Some(40), top_p: Some(0.95), seed, ..Default::default() })
    };
    tch::manual_seed(1);
    let first = generate(&model, &batch, &at(5))?;
    let after = Tensor::rand([3], (Kind::Float, Device::Cpu));
    assert_bits("again", &generate(&model, &batch, &at(5))?, &first)?;
    assert_bits("slow", &generate(&model, &batch, &GenerateConfig { use_cache: false, ..at(5) })?, &first)?;
    ensure!(!generate(&model, &batch, &at(6))?.equal(&first), "another seed draws the same");
    tch::manual_seed(1);
    assert_bits("the generator", &Tensor::rand([3], (Kind::Float, Device::Cpu)), &after)
}

#[test]
fn rows_end_at_any_of_the_ends() -> Result<()> {
    let _serial = serial();
    let peft = base("gpt2", &json!({}))?;
    let (model, batch) = (peft.view(&[])?, padded(false));
    let free = GenerateConfig { max_new_tokens: 10, ..Default::default() };
    let text: Vec<Vec<i64>> = Vec::try_from(generate(&model, &batch, &free)?)?;
    let ends = vec![text[0][2], text[1][4]];
    let config = GenerateConfig { eos_token_ids: ends.clone(), pad_token_id: 95, ..free };
    let ended: Vec<Vec<i64>> = Vec::try_from(generate(&model, &batch, &config)?)?;
    for (full, row) in text.iter().zip(&ended) {
        let end = full.iter().position(|t| ends.contains(t)).map_or(full.len(), |i| i + 1);
        ensure!(
            row.iter().take(end).eq(full.iter().take(end).take(row.len())),
            "{row:?} is not the start of {full:?}"
        );
        ensure!(row.iter().skip(end).all(|t| *t == 95), "{row:?} goes on behind {end}");
    }
    // One row alone stops where it ends.
    let one = generate(&model, &alone(&batch, 0)?, &config)?;
    ensure!(one.size()[1] <= 3, "{:?}", one.size());
    Ok(())
}

#[test]
fn what_cannot_be_generated() -> Result<()> {
    let _serial = serial();
    let peft = base("llama", &json!({}))?;
    let (model, batch) = (peft.view(&[])?, padded(true));
    let try_with = |config: GenerateConfig| generate(&model, &batch, &config);
    let none = GenerateConfig { max_new_tokens: 0, ..Default::default() };
    refused("no token", try_with(none), &["max_new_tokens", "0"])?;
    for (wrong, parts) in [
        (Sampling { temperature: 0.0, ..Default::default() }, ["temperature", "0"]),
        (Sampling { temperature: f64::NAN, ..Default::default() }, ["temperature", "NaN"]),
        (Sampling { top_k: Some(0), ..Default::default() }, ["top_k", "0"]),
        (Sampling { top_p: Some(0.0), ..Default::default() }, ["top_p", "0"]),
        (Sampling { top_p: Some(1.5), ..Default::default() }, ["top_p", "1.5"]),
    ] {
        refused("sampling", try_with(sampled(wrong)), &parts)?;
    }
    let ends = GenerateConfig { eos_token_ids: vec![2, 96], ..Default::default() };
    refused("an end beyond the vocabulary", try_with(ends), &["eos_token_ids", "96"])?;
    let pad = GenerateConfig { pad_token_id: -1, ..Default::default() };
    refused("padding below it", try_with(pad), &["pad_token_id", "-1"])?;
    let config = GenerateConfig::default();
    let hollow = Batch {
        mask: padded(true).mask.map(|m| m * Tensor::from_slice(&[1i64, 1, 0, 1]).unsqueeze(1)),
        ..padded(true)
    };
    refused("an empty row", generate(&model, &hollow, &config), &["all padding"])?;
    let nothing = Batch::dense(Tensor::zeros([2, 0], (Kind::Int64, Device::Cpu)));
    refused("no ids", generate(&model, &nothing, &config), &["no token"])?;
    let bert = hub::open(golden("bert/base"), Device::Cpu, Head::Stored)?.peft;
    refused("bert", generate(&bert.view(&[])?, &batch, &config), &["not causal"])?;

    let gpt2 = base("gpt2", &json!({}))?;
    let long = GenerateConfig { max_new_tokens: 60, ..Default::default() };
    refused(
        "more than 64 positions",
        generate(&gpt2.view(&[])?, &batch, &long),
        &["65 tokens", "64 positions"],
    )?;

    let broken = peft.base().get("model.norm.weight", &[32])?;
    let _ = tch::no_grad(|| broken.shallow_clone().fill_(f64::NAN));
    refused("NaN", generate(&model, &batch, &config), &["logit", "NaN", "step 0"])?;
    Ok(())
}

#[test]
fn a_cache_records_no_gradients_and_keeps_to_its_batch() -> Result<()> {
    let _serial = serial();
    let mut peft = base("llama", &json!({}))?;
    peft.add("lora", LoraConfig::default())?;
    let (model, cache) = (peft.view(&["lora"])?, KvCache::new());
    let pass = Pass { cache: Some(&cache), ..Pass::eval() };
    let batch = Batch::dense(Tensor::from_slice(&[5i64, 6]).unsqueeze(0));
    refused("with gradients", model.forward(&batch, pass), &["cache", "no_grad"])?;
    drop(tch::no_grad(|| model.forward(&batch, pass))?);
    // Nor does it mix batches.
    let three = Batch::dense(Tensor::from_slice(&[5i64, 6, 7]).unsqueeze(1));
    refused("other rows", tch::no_grad(|| model.forward(&three, pass)), &["3 rows", "cache of 1"])?;
    Ok(())
}
