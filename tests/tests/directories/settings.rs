//! `generation_config.json`: all is applied, asks for nothing, or is named.

use crate::{SHORT, case, expected, open, short, warned};
use anyhow::{Context, Result, ensure};
use peft_core::Batch;
use peft_core::generate::{GenerateConfig, GenerationSettings, Sampling, generate};
use peft_core::io;
use serde_json::{Value, json};
use tch::Tensor;
use tempfile::TempDir;
use tests::{assert_bits, golden, refused, serial};

/// A directory with a `generation_config.json`.
fn generation(json: Value, config: Value) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    io::write_json(dir.path().join("config.json"), &config)?;
    io::write_json(dir.path().join("generation_config.json"), &json)?;
    Ok(dir)
}

#[test]
fn generation_settings_are_applied() -> Result<()> {
    let _serial = serial();
    let dir = case("generation", "llama")?;
    let defaults = GenerateConfig { max_new_tokens: 12, ..Default::default() };
    let read = GenerationSettings::read(dir.path(), defaults)?;
    warned(&read.warnings, &[])?;
    let sampling = Sampling { temperature: 0.7, top_k: Some(20), top_p: Some(0.8), ..Default::default() };
    ensure!(read.config.sampling == Some(sampling.clone()) && read.sampling == sampling, "{read:?}");
    ensure!(read.config.eos_token_ids == [2, 3] && read.config.pad_token_id == 0, "{read:?}");
    let model = open(dir.path())?.peft.view(&[])?;
    let greedy = GenerateConfig { sampling: None, ..read.config };
    let texts: Vec<Vec<i64>> = serde_json::from_value(expected("generation")?["text"].take())?;
    for (row, text) in SHORT.iter().zip(texts) {
        let batch = Batch::dense(Tensor::from_slice(row).unsqueeze(0));
        let found = generate(&model, &batch, &greedy)?;
        assert_bits("with a penalty", &found, &Tensor::from_slice(&text).unsqueeze(0))?;
        let free = GenerateConfig { processors: Default::default(), ..greedy.clone() };
        ensure!(!generate(&model, &batch, &free)?.equal(&found), "the penalty changes nothing");
    }
    Ok(())
}

#[test]
fn generation_settings_have_transformers_defaults() -> Result<()> {
    let read = |json: Value| -> Result<GenerationSettings> {
        let defaults = GenerateConfig { max_new_tokens: 33, ..Default::default() };
        Ok(GenerationSettings::read(generation(json, json!({}))?.path(), defaults)?)
    };
    let top_k = |k| Sampling { top_k: k, ..Default::default() };
    let plain = read(json!({}))?;
    let expected = GenerateConfig { max_new_tokens: 33, ..Default::default() };
    ensure!(
        plain.config == expected && plain.sampling == top_k(Some(50)) && plain.warnings.is_empty(),
        "{plain:?}"
    );
    let sampled = read(json!({ "do_sample": true, "top_k": null }))?;
    ensure!(sampled.config.sampling == Some(top_k(Some(50))), "{sampled:?}");
    let all = read(json!({ "do_sample": true, "top_k": 0, "top_p": 1.0, "temperature": 1 }))?;
    ensure!(all.config.sampling == Some(top_k(None)), "{all:?}");
    let one = read(json!({ "top_p": 0.0, "min_p": 0.1 }))?;
    ensure!(one.config.sampling.is_none() && one.sampling.min_p == Some(0.1), "{one:?}");
    ensure!(one.sampling.top_p.is_some_and(|p| p > 0.0 && p < 1e-9), "{one:?}");
    let length = read(json!({ "max_length": 64, "use_cache": false }))?.config;
    ensure!(length.max_length == Some(64) && !length.use_cache, "{length:?}");
    let both = read(json!({ "max_length": 64, "max_new_tokens": 5 }))?.config;
    ensure!(both.max_length.is_none() && both.max_new_tokens == 5, "{both:?}");
    let ids =
        read(json!({ "forced_bos_token_id": -1, "forced_eos_token_id": 4, "suppress_tokens": [-1, 7] }))?;
    let p = ids.config.processors;
    ensure!(
        p.forced_bos_token_id.is_none() && p.forced_eos_token_id == [4] && p.suppress_tokens == [7],
        "{p:?}"
    );
    Ok(())
}

/// Of two lengths transformers takes the one that counts new tokens.
#[test]
fn new_tokens_come_before_whole_lengths() -> Result<()> {
    let read = |json: Value| -> Result<GenerationSettings> {
        Ok(GenerationSettings::read(generation(json, json!({}))?.path(), GenerateConfig::default())?)
    };
    for new in [0, 2] {
        let both = read(json!({ "min_length": 9, "min_new_tokens": new }))?;
        let p = &both.config.processors;
        ensure!((p.min_length, p.min_new_tokens) == (0, new), "{p:?}");
        warned(&both.warnings, &[&["min_length", "9", "min_new_tokens comes first"]])?;
    }
    let null =
        read(json!({ "min_length": 9, "min_new_tokens": null, "max_length": 20, "max_new_tokens": null }))?;
    ensure!(null.config.processors.min_length == 9 && null.warnings.is_empty(), "{null:?}");
    let most = read(json!({ "max_length": 20, "max_new_tokens": 5 }))?;
    warned(&most.warnings, &[&["max_length", "20", "max_new_tokens comes first"]])
}

/// transformers makes the settings of `config.json` where there is no other file, and else takes none of them from it.
#[test]
fn settings_of_a_configuration_count_where_they_are_alone() -> Result<()> {
    let config = json!({
        "repetition_penalty": 1.7, "min_length": 12, "suppress_tokens": [77], "eos_token_id": [2, 3], "use_cache": false,
        "num_beams": 3, "hidden_size": 32, "task_specific_params": { "text-generation": { "max_length": 50 } }
    });
    let dir = tempfile::tempdir()?;
    io::write_json(dir.path().join("config.json"), &config)?;
    let alone = GenerationSettings::read(dir.path(), GenerateConfig::default())?;
    let (c, p) = (&alone.config, &alone.config.processors);
    ensure!((p.repetition_penalty, p.min_length) == (1.7, 12) && p.suppress_tokens == [77], "{p:?}");
    ensure!(c.eos_token_ids == [2, 3] && c.use_cache && c.max_length.is_none(), "{c:?}");
    warned(&alone.warnings, &[&["config.json: num_beams", "not applied"]])?;

    io::write_json(dir.path().join("generation_config.json"), &json!({ "bos_token_id": 1 }))?;
    let beside = GenerationSettings::read(dir.path(), GenerateConfig::default())?;
    ensure!(beside.config == GenerateConfig { pad_token_id: 2, ..Default::default() }, "{beside:?}");
    let passed = |field| [field, "as in transformers", "generation_config.json"];
    let parts = [
        passed("config.json: eos_token_id"),
        passed("config.json: min_length"),
        passed("config.json: repetition_penalty"),
        passed("config.json: suppress_tokens"),
        passed("config.json: num_beams"),
    ];
    warned(&beside.warnings, &parts.each_ref().map(|parts| parts.as_slice()))
}

#[test]
fn a_list_is_no_settings() -> Result<()> {
    let dir = generation(json!([1, 2]), json!({}))?;
    let read = GenerationSettings::read(dir.path(), GenerateConfig::default());
    refused("a list", read, &["generation_config.json", "a list", "expected an object"])?;
    Ok(())
}

/// Every setting is applied, asks for nothing, or is named.
#[test]
fn what_is_not_applied_is_named() -> Result<()> {
    let warnings = |json: Value, config: Value| -> Result<Vec<peft_core::Warning>> {
        Ok(GenerationSettings::read(generation(json, config)?.path(), GenerateConfig::default())?.warnings)
    };
    let neutral = json!({
        "num_beams": 1, "typical_p": 1.0, "epsilon_cutoff": 0.0, "guidance_scale": 1, "early_stopping": false,
        "diversity_penalty": 0.0, "output_scores": false, "stop_strings": null, "transformers_version": "5.23.0",
        "bos_token_id": 1, "eos_token_id": 2, "_from_model_config": true, "length_penalty": 1.0
    });
    warned(&warnings(neutral, json!({}))?, &[])?;
    let text = "text may be another";
    for (field, value, message) in [
        ("num_beams", json!(4), text),
        ("typical_p", json!(0.9), text),
        ("stop_strings", json!(["\n"]), text),
        ("watermarking_config", json!({ "bias": 2.0 }), text),
        ("guidance_scale", json!(1.5), text),
        ("encoder_repetition_penalty", json!(1.2), text),
        ("remove_invalid_values", json!(true), text),
        ("num_return_sequences", json!(2), text),
        ("output_scores", json!(true), "no token"),
        ("cache_implementation", json!("hybrid"), "no token"),
        ("max_window_size", json!(6144), "not applied"),
    ] {
        let found = warnings(json!({ field: value.clone() }), json!({}))?;
        warned(&found, &[&["generation_config.json", field, message]]).context(field)?;
    }
    let legacy = json!({ "repetition_penalty": 1.2, "max_length": 20, "num_beams": 1, "do_sample": true });
    let parts: &[&[&str]] =
        &[&["config.json: do_sample", "true"], &["config.json: repetition_penalty", "1.2"]];
    warned(&warnings(json!({}), legacy)?, parts)
}

#[test]
fn settings_that_cannot_be_are_refused_with_their_file() -> Result<()> {
    let eos = json!({ "eos_token_id": 2 });
    for (json, parts) in [
        (json!({ "repetition_penalty": 0.0 }), ["repetition_penalty", "above 0"]),
        (json!({ "repetition_penalty": "1.1" }), ["repetition_penalty", "1.1"]),
        (json!({ "max_new_tokens": 0 }), ["max_new_tokens", "positive"]),
        (json!({ "no_repeat_ngram_size": -1 }), ["no_repeat_ngram_size", "-1"]),
        (json!({ "min_length": 2.5 }), ["min_length", "2.5"]),
        (json!({ "bad_words_ids": [[]] }), ["bad_words_ids", "without tokens"]),
        (json!({ "bad_words_ids": [3] }), ["bad_words_ids", "[3]"]),
        (json!({ "do_sample": true, "temperature": 0.0 }), ["temperature", "above 0"]),
        (json!({ "do_sample": true, "top_p": -0.5 }), ["top_p", "-0.5"]),
        (json!({ "do_sample": true, "min_p": 1.5 }), ["min_p", "1.5"]),
        (json!({ "do_sample": true, "top_k": -1 }), ["top_k", "-1"]),
        (json!({ "do_sample": 1 }), ["do_sample", "1"]),
        (json!({ "suppress_tokens": "x" }), ["suppress_tokens", "x"]),
    ] {
        let dir = generation(json.clone(), eos.clone())?;
        let read = GenerationSettings::read(dir.path(), GenerateConfig::default());
        refused(&json.to_string(), read, &[parts.as_slice(), &["generation_config.json"]].concat())?;
    }
    Ok(())
}

/// Settings under which there is nothing to say.
#[test]
fn settings_that_do_not_fit_the_prompt() -> Result<()> {
    let _serial = serial();
    let model = open(&golden("llama/base"))?.peft.view(&[])?;
    let batch = short();
    let with = |change: &dyn Fn(&mut GenerateConfig)| {
        let mut config = GenerateConfig::default();
        change(&mut config);
        generate(&model, &batch, &config)
    };
    refused("length", with(&|c| c.max_length = Some(8)), &["max_length", "8"])?;
    let nine = with(&|c| c.max_length = Some(9))?;
    ensure!(nine.size() == [2, 1], "{nine:?}");
    let bad = with(&|c| c.processors.bad_words_ids = vec![vec![3, 96]]);
    refused("a word", bad, &["bad_words_ids", "96", "vocabulary"])?;
    let mute = with(&|c| c.processors.suppress_tokens = (0..96).collect());
    refused("all", mute, &["forbid every token", "step 0"])?;
    Ok(())
}
