//! Wrong configurations and files of AdaLoRA, (IA)³, BEFT, VeRA, LN tuning, BitFit and partial fine-tuning.

use crate::{bert, copy, edit_json, edit_tensors, tiny};
use anyhow::{Result, ensure};
use peft_core::hub;
use peft_core::methods::{
    AdaLoraConfig, BeftConfig, BitFitConfig, Common, Ia3Config, LnTuningConfig, PartialConfig, VeraConfig,
};
use peft_core::seam::MethodConfig;
use peft_core::target::{Names, Targets};
use peft_core::{Error, Peft};
use serde_json::{Value, json};
use tch::Device;
use tests::{golden, refused, serial};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

fn add(what: &str, method: impl MethodConfig + 'static, parts: &[&str]) -> Result<Error> {
    let mut peft = tiny()?;
    let error = refused(what, peft.add("a", method), parts)?;
    ensure!(peft.names().is_empty(), "{what}: it was added all the same");
    Ok(error)
}

fn names(list: &[&str]) -> Option<Names> {
    Some(Names::list(list.iter().copied()))
}

fn base(family: &str) -> Result<Peft> {
    Ok(hub::open(golden(family).join("base"), Device::Cpu, hub::Head::Stored)?.peft)
}

/// Loads a golden of Llama's with its config changed.
fn load_with(folder: &str, edit: impl FnOnce(&mut Value), parts: &[&str]) -> Result<()> {
    let dir = copy(folder)?;
    edit_json(&dir.path().join(CONFIG), edit)?;
    refused(folder, base("llama")?.load("a", dir.path()), &[parts, &[CONFIG]].concat())?;
    Ok(())
}

#[test]
fn adalora_checks_its_numbers() -> Result<()> {
    let _serial = serial();
    let fine =
        || AdaLoraConfig { total_step: Some(10), targets: ["ff.0"].into(), ..AdaLoraConfig::default() };
    tiny()?.add("a", fine())?;
    add("init_r", AdaLoraConfig { init_r: -1, ..fine() }, &["AdaLoRA", "init_r:", "-1"])?;
    let parts = ["AdaLoRA", "target_r:", "init_r (12)", "13"];
    add("target_r", AdaLoraConfig { target_r: 13, ..fine() }, &parts)?;
    add("deltaT", AdaLoraConfig { delta_t: 0, ..fine() }, &["deltaT:", "positive"])?;
    for total_step in [None, Some(0)] {
        add("total", AdaLoraConfig { total_step, ..fine() }, &["total_step:", "number of training steps"])?;
    }
    for (tinit, tfinal) in [(10, 0), (4, 6), (0, 9), (0, 30)] {
        add(
            "schedule",
            AdaLoraConfig { tinit, tfinal, ..fine() },
            &["total_step:", &format!("tinit, {tinit}"), "no steps"],
        )?;
    }
    add("beta1", AdaLoraConfig { beta1: 1.0, ..fine() }, &["beta1:", "(0, 1)", "is 1"])?;
    add("beta2", AdaLoraConfig { beta2: f64::NAN, ..fine() }, &["beta2:", "NaN"])?;
    add("penalty", AdaLoraConfig { orth_reg_weight: -0.5, ..fine() }, &["orth_reg_weight:", "-0.5"])?;
    add("alpha", AdaLoraConfig { lora_alpha: 0.0, ..fine() }, &["lora_alpha:", "positive"])?;
    add("dropout", AdaLoraConfig { lora_dropout: 1.0, ..fine() }, &["lora_dropout:", "[0, 1)"])?;
    add("embedding", AdaLoraConfig { targets: ["embed"].into(), ..fine() }, &["`embed`"])?;
    Ok(())
}

#[test]
fn a_rank_pattern_must_be_that_of_the_targets() -> Result<()> {
    let key = "model.layers.0.self_attn.q_proj.lora_E";
    let edit = |value: Value| move |c: &mut Value| c["rank_pattern"][key] = value;
    load_with("llama/adalora", edit(json!([true])), &["rank_pattern", key, "1 values", "init_r = 6"])?;
    load_with("llama/adalora", edit(json!(3)), &["rank_pattern"])?;
    let other = "model.layers.0.self_attn.k_proj.lora_E";
    let add = |c: &mut Value| c["rank_pattern"][other] = json!([true, true, true, true, true, true]);
    load_with("llama/adalora", add, &["rank_pattern", other, "matches nothing"])?;
    load_with("llama/adalora", |c| c["tinit"] = json!(-1), &["tinit", "-1"])?;
    load_with("llama/adalora", |c| c["use_dora"] = json!(true), &["use_dora", "not supported"])?;
    // Another pattern than the tensors have.
    let dir = copy("llama/adalora")?;
    edit_json(&dir.path().join(CONFIG), |c| c["rank_pattern"][key] = json!(vec![true; 6]))?;
    let error = refused("ranks", base("llama")?.load("a", dir.path()), &["[4, 32]", "[6, 32]"])?;
    ensure!(matches!(error, Error::Shape { .. }), "{error:?}");
    Ok(())
}

/// PEFT ignores these, and people set them.
#[test]
fn adalora_takes_loras_fields_that_mean_nothing_to_it() -> Result<()> {
    let (dir, out) = (copy("llama/adalora")?, tempfile::tempdir()?);
    let fields = [("r", json!(4)), ("use_rslora", json!(true)), ("alpha_pattern", json!({ "q_proj": 2 }))];
    edit_json(&dir.path().join(CONFIG), |c| fields.iter().for_each(|(f, v)| c[*f] = v.clone()))?;
    let mut peft = base("llama")?;
    peft.load("a", dir.path())?;
    peft.save("a", out.path())?;
    let written = peft_core::io::read_json(out.path().join(CONFIG))?;
    for (field, value) in fields {
        ensure!(written[field] == value, "{field}: {}", written[field]);
    }
    Ok(())
}

#[test]
fn ia3_checks_its_feed_forward_modules() -> Result<()> {
    let _serial = serial();
    let config = |target_modules: Option<Names>, feedforward| Ia3Config {
        targets: Targets { target_modules, ..Targets::default() },
        feedforward_modules: feedforward,
        ..Ia3Config::default()
    };
    let field = "feedforward_modules";
    let list = names(&["in_proj", "ff.2"]);
    let parts = ["(IA)³", field, "`ff.0`", "target_modules"];
    add("no subset", config(list.clone(), names(&["ff.0"])), &parts)?;
    add("no default", config(list.clone(), None), &["(IA)³", field, "model type", "[]"])?;
    let pattern = |p: &str| Some(Names::Pattern(p.into()));
    add("pattern", config(list.clone(), pattern(".*ff.7")), &[field, "`.*ff.7`", "matches nothing"])?;
    add("regex", config(list.clone(), pattern("(")), &[field, "`(`"])?;
    add("typo", config(pattern(".*ff.2"), names(&["ff.3"])), &[field, "`ff.3`", "did you mean `ff.2`"])?;
    add("embedding", config(names(&["embed"]), names(&[])), &["(IA)³", "`embed`", "linear layer"])?;
    add("all", config(pattern("all-linear"), names(&["ff.3"])), &[field, "`ff.3`", "target_modules"])?;
    // The default is a part of what the target's name stands for, which no name of the file could say.
    let gpt2 = config(names(&["c_proj"]), None);
    refused("gpt2", base("gpt2")?.add("a", gpt2), &[field, "`mlp.c_proj`"])?;
    Ok(())
}

#[test]
fn beft_is_for_linear_layers_and_merges_where_there_is_a_bias() -> Result<()> {
    let _serial = serial();
    let on = |list: &[&str]| BeftConfig { target_modules: names(list), ..BeftConfig::default() };
    add("norm", on(&["n1"]), &["BEFT", "`layers.0.n1`", "a norm, not a linear layer"])?;
    add("typo", on(&["in_porj"]), &["BEFT", "target_modules", "`in_porj`", "did you mean `in_proj`"])?;
    let gpt2 = base("gpt2")?.add("a", BeftConfig::default());
    refused("no default", gpt2, &["BEFT", "target_modules", "`gpt2`"])?;
    load_with("llama/beft", |c| c["init_weights"] = json!("zero"), &["init_weights", "zero"])?;
    let mut excluding = peft_core::io::read_json(golden("llama/beft").join(CONFIG))?;
    excluding["exclude_modules"] = json!(["k"]);
    let strict = peft_core::methods::from_json(excluding, "a user");
    refused("exclude", strict, &["a user", "exclude_modules", "not supported"])?;
    let mut peft = base("llama")?;
    peft.load("a", golden("llama/beft"))?;
    let parts = ["`model.layers.0.self_attn.v_proj`", "adds a bias to a layer that has none"];
    refused("merging", peft.merged(&["a"]), &parts)?;
    Ok(())
}

#[test]
fn vera_checks_its_numbers() -> Result<()> {
    let _serial = serial();
    let fine = || VeraConfig { r: 4, target_modules: names(&["ff.0"]), ..VeraConfig::default() };
    add("r", VeraConfig { r: 0, ..fine() }, &["VeRA", "r:", "positive", "0"])?;
    add("dropout", VeraConfig { vera_dropout: -0.1, ..fine() }, &["VeRA", "vera_dropout:", "-0.1"])?;
    add("d", VeraConfig { d_initial: f64::INFINITY, ..fine() }, &["VeRA", "d_initial:", "finite"])?;
    add("layer", VeraConfig { layers: [2].into(), ..fine() }, &["VeRA", "layers_to_transform", "2"])?;
    load_with("llama/vera", |c| c["bias"] = json!("all"), &["bias", "all", "not supported"])?;
    load_with("llama/vera", |c| c["projection_prng_key"] = json!("x"), &["projection_prng_key"])
}

/// A file without its projections, and one that has them although it says otherwise.
#[test]
fn veras_projections_are_where_the_config_says() -> Result<()> {
    let dir = copy("llama/vera")?;
    edit_json(&dir.path().join(CONFIG), |c| c["save_projection"] = json!(false))?;
    let mut peft = base("llama")?;
    let parts = [TENSORS, "nothing reads", "`base_model.vera_A`"];
    refused("superfluous", peft.load("a", dir.path()), &parts)?;
    edit_json(&dir.path().join(CONFIG), |c| c["save_projection"] = json!(true))?;
    edit_tensors(&dir.path().join(TENSORS), |all| drop(all.remove("base_model.vera_B")))?;
    let parts = [TENSORS, "no tensor `base_model.vera_B`", "[32, 8]"];
    refused("missing", peft.load("a", dir.path()), &parts)?;
    Ok(())
}

#[test]
fn copies_check_their_names() -> Result<()> {
    let _serial = serial();
    let norms = |list: &[&str]| LnTuningConfig::default().targets(list);
    add("norms", norms(&["n3"]), &["LN tuning", "target_modules", "`n3`", "did you mean"])?;
    add("no norm", norms(&["ff.0"]), &["LN tuning", "`layers.0.ff.0`", "linear layer, not a norm"])?;
    refused("no default", bert()?.add("a", LnTuningConfig::default()), &["LN tuning", "`bert`"])?;

    let biases = BitFitConfig::default().targets(["ff.0", "ff.9"]);
    add("biases", biases.clone(), &["BitFit", "target_modules", "`ff.9`", "did you mean"])?;
    let targets = Targets { exclude_modules: Some(".*".into()), ..Targets::default() };
    let all = BitFitConfig { targets, ..BitFitConfig::default() };
    add("excluded", all, &["BitFit", "no bias"])?;
    refused("none", base("llama")?.add("a", BitFitConfig::default()), &["BitFit", "no bias"])?;

    let partial = PartialConfig::default;
    add("nothing", partial(), &["partial fine-tuning", "target_parameters", "last_layers"])?;
    for n in [0, -1, 3] {
        let config = PartialConfig { last_layers: Some(n), ..partial() };
        add("layers", config, &["last_layers:", "from 1 to the model's 2", &n.to_string()])?;
    }
    let typo = PartialConfig { last_layers: Some(1), target_parameters: names(&["haed"]), ..partial() };
    add("typo", typo, &["target_parameters", "`haed`", "did you mean `head`"])?;
    let common = Common { modules_to_save: Some(vec!["head".into()]), ..Common::default() };
    let saved = PartialConfig { target_parameters: names(&["head"]), common, ..partial() };
    add("all saved", saved, &["partial fine-tuning", "adapts nothing"])?;
    Ok(())
}
