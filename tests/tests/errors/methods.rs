//! Methods that are added with a wrong configuration, and names of adapters.

use crate::{bert, tiny};
use anyhow::{Result, ensure};
use peft_core::Error;
use peft_core::methods::{
    BottleneckConfig, Common, LoraConfig, Placement, PrefixTuningConfig, PromptTuningConfig, Scaling,
};
use peft_core::target::{Names, Targets};
use serde_json::json;
use std::path::Path;
use tests::{refused, serial};

fn lora(targets: &[&str]) -> LoraConfig {
    LoraConfig { targets: targets.into(), ..LoraConfig::default() }
}

/// Adds a method to Tiny; the message has to hold `parts`.
pub(crate) fn add(
    what: &str,
    method: impl peft_core::seam::MethodConfig + 'static,
    parts: &[&str],
) -> Result<Error> {
    let mut peft = tiny()?;
    let error = refused(what, peft.add("a", method), parts)?;
    ensure!(peft.names().is_empty(), "{what}: it was added all the same");
    Ok(error)
}

#[test]
fn lora_checks_its_numbers() -> Result<()> {
    let _serial = serial();
    let lora = || lora(&["ff.0"]);
    add("r", LoraConfig { r: 0, ..lora() }, &["LoRA", "r:", "positive", "0"])?;
    add("r", LoraConfig { r: -3, ..lora() }, &["LoRA", "r:", "positive", "-3"])?;
    for p in [1.5, 1.0, -0.1, f64::NAN] {
        let dropout = format!("is {p}");
        add(
            "dropout",
            LoraConfig { lora_dropout: p, ..lora() },
            &["LoRA", "lora_dropout", "[0, 1)", &dropout],
        )?;
    }
    add(
        "alpha",
        LoraConfig { lora_alpha: f64::INFINITY, ..lora() },
        &["LoRA", "lora_alpha", "finite", "inf"],
    )?;
    // What is too large for any memory is said with its name.
    add(
        "r",
        LoraConfig { r: i64::MAX, ..lora() },
        &["at `base_model.model.layers.0.ff.0.lora_A.weight`", "libtorch"],
    )?;
    let none = LoraConfig { targets: Targets::default(), ..lora() };
    add("no targets", none, &["LoRA", "target_modules", "`tiny`"])?;
    Ok(())
}

#[test]
fn other_methods_check_their_numbers() -> Result<()> {
    let _serial = serial();
    let size = BottleneckConfig { bottleneck_size: 0, ..BottleneckConfig::default() };
    add("size", size, &["bottleneck", "bottleneck_size", "positive", "0"])?;
    let config = BottleneckConfig { scaling: Scaling::Fixed(f64::NAN), ..BottleneckConfig::default() };
    add("scaling", config, &["bottleneck", "scaling", "finite, is NaN"])?;
    for wrong in [json!("leaned"), json!(true)] {
        let json = json!({ "peft_type": "BOTTLENECK", "scaling": wrong });
        let parts = ["a user", "scaling", &wrong.to_string(), "a number or \"learned\""];
        refused("scaling", peft_core::methods::from_json(json, "a user"), &parts)?;
    }
    let size = BottleneckConfig { reduction_factor: Some(4.0), ..BottleneckConfig::default() };
    add("both sizes", size, &["bottleneck", "reduction_factor", "bottleneck_size", "is 64"])?;
    for factor in [0.0, -2.0, f64::NAN] {
        let config = BottleneckConfig { reduction_factor: Some(factor), ..BottleneckConfig::houlsby() };
        add("factor", config, &["bottleneck", "reduction_factor", "positive", &format!("is {factor}")])?;
    }
    let norm = BottleneckConfig { adapter_residual_before_ln: true, ..BottleneckConfig::default() };
    add("norm", norm, &["bottleneck", "adapter_residual_before_ln", "ln_after"])?;
    let dropout = BottleneckConfig { dropout: 1.0, ..BottleneckConfig::default() };
    add("dropout", dropout, &["bottleneck", "dropout", "[0, 1)", "is 1"])?;
    let layers = BottleneckConfig { leave_out: vec![1, 2], ..BottleneckConfig::default() };
    add("layers", layers, &["bottleneck", "leave_out", "no layer 2", "2"])?;
    let layers = BottleneckConfig { leave_out: vec![1, 0], ..BottleneckConfig::default() };
    add("layers", layers, &["bottleneck", "adapts nothing"])?;
    let prompt = || PromptTuningConfig { num_virtual_tokens: 0, ..PromptTuningConfig::default() };
    add("tokens", prompt(), &["prompt tuning", "num_virtual_tokens", "positive", "0"])?;
    let other = PromptTuningConfig { token_dim: Some(768), num_virtual_tokens: 2, ..prompt() };
    add("width", other, &["prompt tuning", "token_dim", "768", "8"])?;
    let other = PrefixTuningConfig { num_layers: Some(12), ..PrefixTuningConfig::default() };
    add("layers", other, &["prefix tuning", "num_layers", "12", "2"])?;
    Ok(())
}

/// `placement: []` is an adapter without parameters; a head that is trained beside it does not make it one.
#[test]
fn bottlenecks_nowhere_are_refused() -> Result<()> {
    let config = BottleneckConfig { placement: vec![], ..BottleneckConfig::default() };
    add("alone", config.clone(), &["bottleneck adapter", "adapts nothing"])?;
    let with_head = BottleneckConfig { common: Common::classifier(), ..config };
    refused("with a head", bert()?.add("a", with_head), &["bottleneck adapter"])?;
    Ok(())
}

#[test]
fn lora_is_for_linear_layers_and_embeddings() -> Result<()> {
    let _serial = serial();
    for (target, site) in [("ff", "`layers.0.ff`"), ("n1", "`layers.0.n1`"), ("1", "`layers.1`")] {
        let error =
            add(target, lora(&["ff.0", target]), &["LoRA", site, "not a linear layer or an embedding"])?;
        ensure!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    }
    Ok(())
}

/// An attention core is a site as well, and no linear layer either: alone, and beside targets that match.
#[test]
fn lora_is_not_for_attention_cores() -> Result<()> {
    let _serial = serial();
    add("alone", lora(&["attn.core"]), &["LoRA"])?;
    add("beside another", lora(&["ff.0", "attn.core"]), &["LoRA", "attn.core"])?;
    Ok(())
}

/// A LoRA that adapts no layer is an error, also where it trains the head.
#[test]
fn exclusions_that_leave_nothing_are_refused() -> Result<()> {
    let _serial = serial();
    for target in [Names::list(["query", "value"]), Names::Pattern("all-linear".into())] {
        let config = LoraConfig {
            targets: Targets { target_modules: Some(target.clone()), exclude_modules: Some(".*".into()) },
            common: Common::classifier(),
            ..LoraConfig::default()
        };
        let parts = ["LoRA", "target_modules", "nothing left", "exclude_modules"];
        refused(&format!("{target:?}"), bert()?.add("a", config), &parts)?;
    }
    add("an empty list", lora(&[]), &["LoRA", "target_modules", "names nothing"])?;
    add("an empty name", lora(&[""]), &["LoRA", "target_modules", "matches nothing"])?;
    Ok(())
}

#[test]
fn modules_to_save_with_a_typo() -> Result<()> {
    let _serial = serial();
    let common = |module: &str| Common { modules_to_save: Some(vec![module.into()]), ..Common::default() };
    let parts = ["LoRA", "`haed`", "modules_to_save", "did you mean `head`"];
    add("lora", LoraConfig { common: common("haed"), ..lora(&["ff.0"]) }, &parts)?;
    // PEFT would train the whole model.
    add(
        "empty",
        LoraConfig { common: common(""), ..lora(&["ff.0"]) },
        &["LoRA", "modules_to_save", "empty"],
    )?;
    let prompt = PromptTuningConfig { common: common("haed"), ..PromptTuningConfig::default() };
    add("prompt", prompt, &["prompt tuning", "`haed`", "modules_to_save", "did you mean `head`"])?;
    Ok(())
}

/// The suggestion knows modules that have no parameters of their own, only children that have.
#[test]
fn modules_to_save_suggests_parents() -> Result<()> {
    let common = Common { modules_to_save: Some(vec!["poolr".into()]), ..Common::default() };
    let config = LoraConfig { common, ..lora(&["query"]) };
    refused("adding", bert()?.add("a", config), &["`poolr`", "modules_to_save", "did you mean `pooler`"])?;
    Ok(())
}

#[test]
fn an_unknown_adapter_is_named_with_the_known_ones() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    refused("view", peft.view(&["x"]), &["`x`", "none"])?;
    peft.add("en", lora(&["ff.0"]))?;
    peft.add("fr", lora(&["ff.2"]))?;
    let parts = ["`x`", "`en`", "`fr`"];
    let error = refused("view", peft.view(&["en", "x"]), &parts)?;
    ensure!(matches!(error, Error::UnknownAdapter { .. }), "{error:?}");
    refused("merged", peft.merged(&["x"]), &parts)?;
    refused("params", peft.params("x"), &parts)?;
    refused("method", peft.method("x"), &parts)?;
    refused("trainable", peft.trainable(&["x"]), &parts)?;
    refused("report", peft.report(&["x"]), &parts)?;
    refused("penalty", peft.penalty(&["x"]), &parts)?;
    refused("after_step", peft.after_step(&["x"], 1), &parts)?;
    refused("delete", peft.delete("x"), &parts)?;
    refused("save", peft.save("x", Path::new("nowhere")), &parts)?;
    Ok(())
}

#[test]
fn a_name_that_is_taken() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    peft.add("a", lora(&["ff.0"]))?;
    let before = peft.params("a")?.tensors().into_keys().collect::<Vec<_>>();
    let error = refused("adding", peft.add("a", lora(&["ff.2"])), &["`a`", "exists already"])?;
    ensure!(matches!(error, Error::Exists { .. }), "{error:?}");
    ensure!(peft.params("a")?.tensors().into_keys().eq(before), "the first one was replaced");
    peft.delete("a")?;
    peft.add("a", lora(&["ff.2"]))?;
    Ok(())
}

/// The same adapter twice in one view is its effect twice: nobody means that.
#[test]
fn the_same_adapter_twice_in_a_view() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    peft.add("a", lora(&["ff.0"]))?;
    refused("view", peft.view(&["a", "a"]), &["`a`"])?;
    Ok(())
}

/// AdapterHub's options about the model's own norm have one value here, and files say so.
#[test]
fn adapterhubs_other_options_are_refused() -> Result<()> {
    use peft_core::methods::{from_json, to_json};
    let json = to_json(&BottleneckConfig::pfeiffer())?;
    for (field, value) in [
        ("original_ln_before", true.into()),
        ("original_ln_after", false.into()),
        ("residual_before_ln", "post_add".into()),
        ("use_gating", true.into()),
        ("phm_layer", true.into()),
        ("inv_adapter", json!("nice")),
    ] {
        let mut other = json.clone();
        other[field] = value;
        refused(field, from_json(other, "a file"), &["a file", field, "not supported"])?;
    }
    let mut swish = json.clone();
    swish["non_linearity"] = "swish".into();
    from_json(swish, "a file")?;
    // As this crate wrote it before it had the other fields.
    let old = json!({
        "peft_type": "BOTTLENECK", "bottleneck_size": 4, "non_linearity": "gelu", "placement": ["layer"],
        "is_parallel": false, "scaling": 1.0, "init_weights": "zero", "task_type": null, "modules_to_save": null
    });
    let config =
        BottleneckConfig { bottleneck_size: 4, placement: vec![Placement::Layer], ..Default::default() };
    let read = from_json(old, "an old file")?;
    ensure!(format!("{read:?}") == format!("{config:?}"), "{read:?}");
    Ok(())
}
