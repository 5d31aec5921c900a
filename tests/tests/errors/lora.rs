//! LoRA's family with wrong configurations and files: every field that is checked, by its name.

use crate::{bert, copy, edit_json, edit_tensors, tiny};
use anyhow::{Result, ensure};
use peft_core::hub;
use peft_core::methods::{
    Bias, Common, InitLora, LoraConfig, TokenIndices, TrainableTokensConfig, from_json,
};
use peft_core::seam::MethodConfig;
use peft_core::target::{Layers, Names, Patterns, Targets};
use peft_core::{Batch, Error, Model, Pass, Peft};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tests::{assert_bits, golden, refused, serial};

const TENSORS: &str = "adapter_model.safetensors";

fn llama() -> Result<Peft> {
    Ok(hub::open(golden("llama/base"), Device::Cpu, hub::Head::Stored)?.peft)
}

fn gpt2() -> Result<Peft> {
    Ok(hub::open(golden("gpt2/base"), Device::Cpu, hub::Head::Stored)?.peft)
}

fn lora(targets: &[&str]) -> LoraConfig {
    LoraConfig { targets: targets.into(), ..LoraConfig::default() }
}

/// Adds a method to the golden Llama; the message has to hold `parts`.
fn add(what: &str, method: impl MethodConfig + 'static, parts: &[&str]) -> Result<Error> {
    let mut peft = llama()?;
    let error = refused(what, peft.add("a", method), parts)?;
    ensure!(peft.names().is_empty(), "{what}: it was added all the same");
    Ok(error)
}

#[test]
fn starts_that_cannot_be_made() -> Result<()> {
    let _serial = serial();
    for name in ["eva", "loftq", "orthogonal", "corda", "lora_ga", "mica", "pissa_niter_4", "gausian"] {
        let json = json!({ "peft_type": "LORA", "target_modules": ["q_proj"], "init_lora_weights": name });
        let parts = match name {
            // Files of trained adapters may have them: such a start is in the tensors.
            "eva" | "orthogonal" | "lora_ga" => vec!["trained already"],
            _ => vec!["gaussian", "\"pissa\"", "\"olora\"", "true"],
        };
        let parts = [vec!["a user", "init_lora_weights", name], parts].concat();
        refused(name, from_json(json, "a user"), &parts)?;
    }
    // It divides by the scale and takes the root.
    for alpha in [0.0, -4.0] {
        let config =
            LoraConfig { init_lora_weights: InitLora::Pissa, lora_alpha: alpha, ..lora(&["q_proj"]) };
        add("pissa", config, &["LoRA", "lora_alpha", "q_proj`", "positive", &format!("is {}", alpha / 8.0)])?;
    }
    Ok(())
}

#[test]
fn patterns_that_are_wrong() -> Result<()> {
    let _serial = serial();
    let ranks = |pattern: &str, r: serde_json::Value| LoraConfig {
        rank_pattern: Patterns::new([(pattern.to_owned(), r)]),
        ..lora(&["q_proj"])
    };
    let matches = |error: Error| ensure_target(&error);
    matches(add("a typo", ranks("q_prj", json!(2)), &["rank_pattern", "`q_prj`", "`q_proj`"])?)?;
    matches(add("not a target", ranks("v_proj", json!(2)), &["rank_pattern", "`v_proj`"])?)?;
    for r in [json!(0), json!(-2), json!(2.5)] {
        add("rank", ranks("q_proj", r.clone()), &["rank_pattern", "positive integer", "q_proj"])?;
    }
    add("rank", ranks("q_proj", json!("2")), &["rank_pattern", "`q_proj`", "not a number"])?;
    let alpha = LoraConfig { alpha_pattern: Patterns::new([("k_proj", 2)]), ..lora(&["q_proj"]) };
    matches(add("alpha", alpha, &["alpha_pattern", "`k_proj`"])?)
}

fn ensure_target(error: &Error) -> Result<()> {
    ensure!(matches!(error, Error::NoTarget { .. }), "{error:?}");
    Ok(())
}

#[test]
fn layers_that_are_not_there() -> Result<()> {
    let _serial = serial();
    let config = LoraConfig { layers: [7].into(), ..lora(&["q_proj"]) };
    add("layer 7", config, &["layers_to_transform", "layer 7"])?;
    let config = LoraConfig { targets: ".*q_proj".into(), layers: [0].into(), ..LoraConfig::default() };
    add("a pattern", config, &["layers_to_transform", "list of target_modules"])?;
    let config = LoraConfig {
        layers: Layers { layers_pattern: Some(["layers"].into()), ..Layers::default() },
        ..lora(&["q_proj"])
    };
    add("no layers", config, &["layers_pattern", "layers_to_transform"])?;
    Ok(())
}

#[test]
fn biases_of_b() -> Result<()> {
    let _serial = serial();
    let bias = || LoraConfig { lora_bias: true, ..lora(&["q_proj"]) };
    add("dora", LoraConfig { use_dora: true, ..bias() }, &["lora_bias", "use_dora"])?;
    let init_lora_weights = InitLora::Pissa;
    add("pissa", LoraConfig { init_lora_weights, ..bias() }, &["lora_bias", "init_lora_weights"])?;
    let targets = ["model.embed_tokens", "q_proj"];
    let config = LoraConfig { lora_bias: true, ..lora(&targets) };
    add("an embedding", config, &["lora_bias", "`model.embed_tokens`", "embedding"])?;
    // Where the layer has no bias, the adapter works and does not merge.
    let mut peft = llama()?;
    peft.add("a", bias())?;
    let parts = ["LoRA", "`model.layers.0.self_attn.q_proj`", "lora_bias", "has a bias"];
    refused("merging", peft.merged(&["a"]), &parts)?;
    Ok(())
}

#[test]
fn parameters_that_are_no_weights() -> Result<()> {
    let _serial = serial();
    let parameters = |names: &[&str]| LoraConfig {
        target_parameters: Some(names.iter().map(|n| (*n).to_owned()).collect()),
        ..LoraConfig::default()
    };
    let typo = add("a typo", parameters(&["q_prj.weight"]), &["target_parameters", "`q_prj.weight`"])?;
    ensure_target(&typo)?;
    for name in ["norm.weight", "embed_tokens.weight"] {
        add(name, parameters(&[name]), &["target_parameters", name, "linear layer"])?;
    }
    refused(
        "stored as [in, out]",
        gpt2()?.add("a", parameters(&["c_fc.weight"])),
        &["target_parameters", "`transformer.h.0.mlp.c_fc.weight`", "[out, in]"],
    )?;
    let one = || parameters(&["q_proj.weight"]);
    let both = LoraConfig { targets: ["q_proj"].into(), ..one() };
    add("twice", both, &["target_parameters", "`q_proj.weight`", "already"])?;
    for (field, config) in [
        ("lora_dropout", LoraConfig { lora_dropout: 0.1, ..one() }),
        ("lora_bias", LoraConfig { lora_bias: true, ..one() }),
        ("use_dora", LoraConfig { use_dora: true, ..one() }),
        (
            "exclude_modules",
            LoraConfig {
                targets: Targets { exclude_modules: Some(["q_proj"].into()), ..Targets::default() },
                ..one()
            },
        ),
        ("layers_to_transform", LoraConfig { layers: [0].into(), ..one() }),
    ] {
        add(field, config, &["LoRA", field])?;
    }
    Ok(())
}

#[test]
fn tokens_that_are_wrong() -> Result<()> {
    let _serial = serial();
    let tokens = |token_indices: &[i64]| TrainableTokensConfig {
        token_indices: token_indices.to_vec(),
        ..TrainableTokensConfig::default()
    };
    let name = "trainable tokens";
    add("none", tokens(&[]), &[name, "token_indices", "[]"])?;
    add("twice", tokens(&[3, 5, 3]), &[name, "token_indices", "[3, 5, 3]"])?;
    for i in [-1, 96] {
        add("outside", tokens(&[1, i]), &[name, "token_indices", &format!("token {i}"), "96"])?;
    }
    let at =
        |target: &str| TrainableTokensConfig { target_modules: Some(Names::list([target])), ..tokens(&[1]) };
    add("a linear layer", at("q_proj"), &[name, "q_proj", "not an embedding"])?;
    add("a norm", at("norm"), &[name, "norm", "not an embedding"])?;

    let rows = |layers: &[(&str, &[i64])]| LoraConfig {
        trainable_token_indices: Some(TokenIndices::Layers(
            layers.iter().map(|(name, indices)| ((*name).to_owned(), indices.to_vec())).collect(),
        )),
        ..lora(&["q_proj"])
    };
    let field = "trainable_token_indices";
    ensure_target(&add(
        "a typo",
        rows(&[("embed_token", &[1])]),
        &[field, "`embed_token`", "`embed_tokens`"],
    )?)?;
    add("outside", rows(&[("embed_tokens", &[96])]), &["LoRA", field, "token 96"])?;
    let common = Common { modules_to_save: Some(vec!["embed_tokens".into()]), ..Common::default() };
    add("saved", LoraConfig { common, ..rows(&[("embed_tokens", &[1])]) }, &[field, "modules_to_save"])?;
    let both = LoraConfig { targets: ["q_proj", "embed_tokens"].into(), ..rows(&[("embed_tokens", &[1])]) };
    add("adapted", both, &[field, "`model.embed_tokens`", "already"])?;
    let differ = rows(&[("wte", &[1]), ("lm_head", &[2])]);
    let differ = LoraConfig { targets: ["c_attn"].into(), ..differ };
    refused("a tied head with others", gpt2()?.add("a", differ), &["LoRA", field, "tied"])?;
    Ok(())
}

/// A token has one row: of two active adapters with the same token, one would not count.
#[test]
fn tokens_of_two_adapters() -> Result<()> {
    let _serial = serial();
    let tokens = |token_indices: &[i64]| TrainableTokensConfig {
        token_indices: token_indices.to_vec(),
        ..TrainableTokensConfig::default()
    };
    let mut peft = llama()?;
    peft.add("en", tokens(&[1, 3, 5]))?;
    peft.add("fr", tokens(&[2, 4]))?;
    let some =
        LoraConfig { trainable_token_indices: Some(TokenIndices::Words(vec![5, 7, 1])), ..lora(&["q_proj"]) };
    peft.add("de", some)?;
    peft.view(&["en", "fr"])?;
    peft.merged(&["fr", "de"])?;
    let parts = ["`en`", "`de`", "`model.embed_tokens`", "[5, 1]"];
    let error = refused("view", peft.view(&["en", "fr", "de"]), &parts)?;
    ensure!(matches!(error, Error::Overlap { .. }), "{error:?}");
    refused("merged", peft.merged(&["en", "de"]), &parts)?;
    // The head alone, and an embedding that it is tied to.
    let mut peft = gpt2()?;
    peft.add(
        "head",
        TrainableTokensConfig { target_modules: Some(Names::list(["lm_head"])), ..tokens(&[3]) },
    )?;
    peft.add("words", tokens(&[3, 4]))?;
    refused("view", peft.view(&["words", "head"]), &["`words`", "`head`", "`lm_head`", "[3]"])?;
    Ok(())
}

/// PEFT stores the rows of a tied head twice: two files in one would be a file that says two things.
#[test]
fn rows_of_a_tied_head_that_differ() -> Result<()> {
    let dir = copy("gpt2/x_trainable_tokens")?;
    edit_tensors(&dir.path().join(TENSORS), |all| {
        let name = "base_model.model.lm_head.trainable_tokens_delta";
        let other = &all[name] + 1;
        all.insert(name.into(), other);
    })?;
    let parts = [TENSORS, "`base_model.model.lm_head.trainable_tokens_delta`", "wte", "equal"];
    refused("loading", gpt2()?.load("a", dir.path()), &parts)?;
    Ok(())
}

/// Of the three biases that PEFT stores for a head, two are the same.
#[test]
fn copies_of_a_bias_that_differ() -> Result<()> {
    let copied = "base_model.model.classifier.modules_to_save.bias";
    let dir = copy("bert/x_bias_all")?;
    edit_tensors(&dir.path().join(TENSORS), |all| {
        let other = &all[copied] + 1;
        all.insert(copied.into(), other);
    })?;
    refused("loading", bert()?.load("a", dir.path()), &[TENSORS, copied, "classifier.bias", "equal"])?;
    // Without `bias: "all"` they have no business there.
    let dir = copy("bert/x_bias_all")?;
    edit_json(&dir.path().join("adapter_config.json"), |c| c["bias"] = "lora_only".into())?;
    let error = refused("loading", bert()?.load("a", dir.path()), &[TENSORS, "nothing reads"])?;
    ensure!(matches!(error, Error::Unread { .. }), "{error:?}");
    Ok(())
}

#[test]
fn biases_by_an_unknown_name() -> Result<()> {
    let dir = copy("bert/lora")?;
    edit_json(&dir.path().join("adapter_config.json"), |c| c["bias"] = "some".into())?;
    refused("loading", bert()?.load("a", dir.path()), &["adapter_config.json", "bias", "some", "lora_only"])?;
    Ok(())
}

/// The layer's type decides, and what a file says of it is not read.
#[test]
fn fan_in_fan_out_is_the_layers() -> Result<()> {
    let _serial = serial();
    let dir = copy("bert/lora")?;
    edit_json(&dir.path().join("adapter_config.json"), |c| c["fan_in_fan_out"] = true.into())?;
    let (mut peft, out) = (bert()?, tempfile::tempdir()?);
    peft.load("a", dir.path())?;
    peft.save("a", out.path())?;
    let written = peft_core::io::read_json(out.path().join("adapter_config.json"))?;
    ensure!(written["fan_in_fan_out"] == false, "{written:#}");
    // All of Tiny's biases, whose names differ.
    let mut peft = tiny()?;
    peft.add("a", LoraConfig { bias: Bias::All, ..lora(&["in_proj"]) })?;
    let biases = peft.outline().params.iter().filter(|p| p.ends_with("bias")).count();
    ensure!(peft.trainable(&["a"])?.len() == biases + 4, "{:?}", peft.report(&["a"])?);
    Ok(())
}

/// PEFT can leave the base's weight out of the file (`save_embedding_layers=False`): it is the base's then. One that is
/// there replaces it, and is of the right shape.
#[test]
fn the_bases_weight_in_a_file() -> Result<()> {
    let _serial = serial();
    let (dir, name) =
        (copy("llama/x_lora_embedding")?, "base_model.model.model.embed_tokens.base_layer.weight");
    let logits = |dir: &std::path::Path| -> Result<Tensor> {
        let mut peft = llama()?;
        peft.load("a", dir)?;
        let ids = Tensor::arange(12, (Kind::Int64, Device::Cpu)).unsqueeze(0);
        Ok(peft.view(&["a"])?.forward(&Batch::dense(ids), Pass::eval())?.detach())
    };
    let whole = logits(dir.path())?;
    let file = dir.path().join(TENSORS);
    edit_tensors(&file, |all| drop(all.remove(name)))?;
    assert_bits("without it", &logits(dir.path())?, &whole)?;
    let with = |t: Tensor| edit_tensors(&file, |all| drop(all.insert(name.into(), t)));
    with(Tensor::ones([96, 32], (Kind::Float, Device::Cpu)))?;
    ensure!(!logits(dir.path())?.equal(&whole), "another weight changes nothing");
    with(Tensor::ones([96, 16], (Kind::Float, Device::Cpu)))?;
    refused("loading", llama()?.load("a", dir.path()), &[TENSORS, name, "[96, 16]", "[96, 32]"])?;
    Ok(())
}
