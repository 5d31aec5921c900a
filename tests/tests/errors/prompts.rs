//! Virtual tokens and gates with a wrong configuration, and files of theirs.

use crate::{bert, edit_json, tiny};
use anyhow::{Result, ensure};
use peft_core::Error;
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::methods::{
    AdaptionPromptConfig, PTuningConfig, PrefixTuningConfig, PromptInit, PromptTuningConfig,
    Reparameterization, ZeroInitAttentionConfig,
};
use peft_core::seam::MethodConfig;
use serde_json::{Value, json};
use tch::Device;
use tests::{edited, golden, refused, serial};

/// Adds a method to Tiny; the message has to hold `parts`.
fn add(method: impl MethodConfig + 'static, parts: &[&str]) -> Result<()> {
    let mut peft = tiny()?;
    refused(parts.last().unwrap_or(&""), peft.add("a", method), parts)?;
    ensure!(peft.names().is_empty(), "it was added all the same");
    Ok(())
}

#[test]
fn sizes_are_checked() -> Result<()> {
    let _serial = serial();
    let p = PTuningConfig::default;
    add(
        PTuningConfig { num_virtual_tokens: 0, ..p() },
        &["P-tuning", "num_virtual_tokens", "positive", "0"],
    )?;
    add(PTuningConfig { encoder_hidden_size: Some(-1), ..p() }, &["encoder_hidden_size", "positive", "-1"])?;
    add(PTuningConfig { encoder_num_layers: 0, ..p() }, &["encoder_num_layers", "positive", "0"])?;
    add(PTuningConfig { token_dim: Some(9), ..p() }, &["token_dim", "9", "8"])?;
    for p in [1.0, -0.5, f64::NAN] {
        let config = PTuningConfig { encoder_dropout: p, ..PTuningConfig::default() };
        add(config, &["encoder_dropout", "[0, 1)", &format!("is {p}")])?;
    }
    let prefix = PrefixTuningConfig { encoder_hidden_size: Some(0), ..PrefixTuningConfig::default() };
    add(prefix, &["prefix tuning", "encoder_hidden_size", "positive", "0"])?;
    let zero = ZeroInitAttentionConfig { num_virtual_tokens: -2, ..ZeroInitAttentionConfig::default() };
    add(zero, &["zero-init attention", "num_virtual_tokens", "positive", "-2"])
}

/// What an encoder would not use is refused where there is to be one, and kept where a file has only its output.
#[test]
fn fields_that_an_encoder_does_not_use() -> Result<()> {
    let _serial = serial();
    let mlp = PTuningConfig::default;
    let lstm = PTuningConfig { encoder_reparameterization_type: Reparameterization::Lstm, ..mlp() };
    add(PTuningConfig { encoder_num_layers: 3, ..mlp() }, &["P-tuning", "encoder_num_layers", "3", "MLP"])?;
    add(PTuningConfig { encoder_dropout: 0.1, ..mlp() }, &["P-tuning", "encoder_dropout", "0.1", "MLP"])?;
    let one = PTuningConfig { encoder_num_layers: 1, encoder_dropout: 0.1, ..lstm };
    add(one, &["P-tuning", "encoder_dropout", "0.1", "layers"])?;

    let dir = crate::copy("bert/ptuning")?;
    edit_json(&dir.path().join("adapter_config.json"), |c| c["encoder_num_layers"] = 3.into())?;
    bert()?.load("a", dir.path())?;
    Ok(())
}

#[test]
fn a_text_needs_a_tokenizer() -> Result<()> {
    let _serial = serial();
    let text = PromptTuningConfig {
        prompt_tuning_init: PromptInit::Text,
        prompt_tuning_init_text: Some("classify".into()),
        tokenizer_name_or_path: Some("t5-base".into()),
        ..PromptTuningConfig::default()
    };
    add(
        PromptTuningConfig { tokenizer_name_or_path: None, ..text.clone() },
        &["tokenizer_name_or_path", "TEXT"],
    )?;
    add(
        PromptTuningConfig { prompt_tuning_init_text: None, ..text.clone() },
        &["prompt_tuning_init_text", "TEXT"],
    )?;
    add(text.clone(), &["tokenizer_name_or_path", "`t5-base`", "local directory", "tokenizer.json"])?;
    let kwargs = json!({ "use_fast": false }).as_object().cloned();
    let with_kwargs = PromptTuningConfig { tokenizer_kwargs: kwargs, ..text.clone() };
    add(with_kwargs.clone(), &["tokenizer_kwargs", "not supported"])?;
    add(
        PromptTuningConfig { prompt_tuning_init: PromptInit::Random, ..with_kwargs },
        &["tokenizer_kwargs", "TEXT"],
    )?;

    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("tokenizer.json"), "{}")?;
    let place = dir.path().display().to_string();
    let broken = PromptTuningConfig { tokenizer_name_or_path: Some(place.clone()), ..text };
    add(broken, &["tokenizer.json", &place])
}

fn adaption() -> AdaptionPromptConfig {
    AdaptionPromptConfig { adapter_len: 4, adapter_layers: 2, ..Default::default() }
}

#[test]
fn adaption_prompts_check_their_place() -> Result<()> {
    let _serial = serial();
    let core = |config| AdaptionPromptConfig { target_modules: Some("core".into()), ..config };
    add(
        core(AdaptionPromptConfig { adapter_len: 0, ..adaption() }),
        &["adaption prompt", "adapter_len", "0"],
    )?;
    add(
        core(AdaptionPromptConfig { adapter_layers: 0, ..adaption() }),
        &["adapter_layers", "positive", "0"],
    )?;
    add(
        core(AdaptionPromptConfig { adapter_layers: 3, ..adaption() }),
        &["adapter_layers", "is 3", "has 2"],
    )?;
    add(adaption(), &["adaption prompt", "target_modules", "`tiny`"])?;
    // Neither a layer nor a block is an attention.
    for target in ["cor", "attn", "in_proj", "ore"] {
        let config = AdaptionPromptConfig { target_modules: Some(target.into()), ..adaption() };
        let error =
            refused(target, tiny()?.add("a", config), &["adaption prompt", "target_modules", target])?;
        ensure!(matches!(error, Error::NoTarget { .. }), "{error:?}");
    }
    Ok(())
}

/// PEFT adds the bias of the output projection twice: numbers that nobody means are not copied, nor others given.
#[test]
fn adaption_prompts_behind_a_bias_are_refused() -> Result<()> {
    let _serial = serial();
    let dir = edited("llama", &json!({ "attention_bias": true }))?;
    let file = dir.path().join("model.safetensors");
    crate::edit_tensors(&file, |all| {
        for layer in 0..2 {
            for (leaf, out) in [("q_proj", 32), ("k_proj", 16), ("v_proj", 16), ("o_proj", 32)] {
                let bias = tch::Tensor::ones([out], (tch::Kind::Float, Device::Cpu));
                all.insert(format!("model.layers.{layer}.self_attn.{leaf}.bias"), bias);
            }
        }
    })?;
    let mut peft = hub::open(dir.path(), Device::Cpu, Head::Stored)?.peft;
    let error = refused("bias", peft.add("a", adaption()), &["`model.layers.0.self_attn`", "bias", "twice"])?;
    ensure!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    Ok(())
}

/// Values that no version of PEFT has, by the name of their field.
#[test]
fn unknown_words_in_a_file() -> Result<()> {
    let _serial = serial();
    for (folder, field, value) in [
        ("prefix", "init_weights", json!("one")),
        ("ptuning", "encoder_reparameterization_type", json!("GRU")),
        ("prompt", "prompt_tuning_init", json!("WORDS")),
        ("prompt", "num_transformer_submodules", json!(2)),
        ("prefix", "prefix_projection", json!("yes")),
    ] {
        let dir = crate::copy(&format!("bert/{folder}"))?;
        edit_json(&dir.path().join("adapter_config.json"), |c: &mut Value| c[field] = value)?;
        refused(field, bert()?.load("a", dir.path()), &["adapter_config.json", field])?;
    }
    let dir = crate::copy("bert/prompt")?;
    std::fs::copy(
        golden("llama/prefix/adapter_model.safetensors"),
        dir.path().join("adapter_model.safetensors"),
    )?;
    refused("another's file", bert()?.load("a", dir.path()), &["prompt_embeddings", "[4, 64]", "[5, 32]"])?;
    Ok(())
}
