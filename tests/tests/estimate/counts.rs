//! Numbers of parameters: of real models by their reports, of LLaMA-7B by what PEFT said and by formulas.

use super::dense;
use anyhow::{Context, Result, ensure};
use peft_core::Error;
use peft_core::estimate::{Blueprint, Setup};
use peft_core::hub;
use peft_core::io::read_json;
use peft_core::methods::{
    BitFitConfig, BottleneckConfig, FullConfig, Ia3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig,
};
use peft_core::seam::MethodConfig;
use serde_json::Value;
use tch::Kind;
use tests::subject::{Bert, Gpt2, Llama};
use tests::subject::{Subject, fresh};
use tests::table::Row;
use tests::{golden, on_every_model, refused};

/// Adapter counts, and those of the whole model, as the real thing reports them; in closed form as well.
fn reports_are_the_real_ones<M: Subject>(row: &Row) -> Result<()> {
    let peft = fresh::<M>(&row.config)?;
    let blueprint = Blueprint::like(&peft)?;
    ensure!(blueprint.parameters() == M::sizes().all, "{} parameters", blueprint.parameters());
    let estimate = blueprint.estimate(row.config.method(), &dense(Kind::Float))?;
    let real = peft.report(&["a"])?;
    ensure!(estimate.report == real, "{} for {real}", estimate.report);
    ensure!(real.trainable == row.count, "{real}, {} by its formula", row.count);
    Ok(())
}

#[test]
fn every_method_is_counted_without_numbers() -> Result<()> {
    on_every_model!(reports_are_the_real_ones)
}

#[test]
fn outlines_are_the_real_ones() -> Result<()> {
    let _serial = tests::serial();
    fn same<M: Subject>() -> Result<()> {
        let peft = M::base()?;
        let blueprint = Blueprint::like(&peft)?;
        ensure!(blueprint.outline() == peft.outline(), "{}", M::NAME);
        Ok(())
    }
    same::<Bert>()?;
    same::<Llama>()?;
    same::<Gpt2>()
}

/// Every family from its `config.json`, tied heads included.
#[test]
fn a_configuration_is_enough() -> Result<()> {
    for family in ["bert", "gpt2", "llama", "mistral", "qwen2", "roberta"] {
        let base = golden(&format!("{family}/base"));
        let dir = tempfile::tempdir()?;
        std::fs::copy(base.join("config.json"), dir.path().join("config.json"))?;
        let found = Blueprint::open(dir.path())?;
        let real = hub::open(&base, tch::Device::Cpu, hub::Head::Stored)?.peft.report(&[])?.all;
        ensure!(found.parameters() == real, "{family}: {} for {real}", found.parameters());
    }
    Ok(())
}

pub fn llama7b() -> Result<(Blueprint, Value)> {
    let json = read_json(golden("llama7b_counts.json"))?;
    Ok((Blueprint::read(&json["model"], "LLaMA-7B")?, json))
}

fn lora(r: i64, targets: &[&str]) -> LoraConfig {
    LoraConfig { r, targets: targets.into(), ..LoraConfig::default() }
}

const SEVEN: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

#[test]
fn llama_7b_has_the_counts_of_peft() -> Result<()> {
    let (blueprint, json) = llama7b()?;
    ensure!(Some(blueprint.parameters()) == json["parameters"].as_i64(), "{blueprint}");
    let methods: Vec<(&str, Box<dyn MethodConfig>)> = vec![
        ("LoRA r=8 q,v", lora(8, &["q_proj", "v_proj"]).into()),
        ("LoRA r=64 q,v", lora(64, &["q_proj", "v_proj"]).into()),
        ("setup_qlora r=64, seven targets", lora(64, &SEVEN).into()),
        ("setup_peft_training lora r=16, q,v,k,o", lora(16, &SEVEN[..4]).into()),
        ("DoRA r=8 q,v", LoraConfig { use_dora: true, ..lora(8, &["q_proj", "v_proj"]) }.into()),
        ("prefix 20", PrefixTuningConfig { num_virtual_tokens: 20, ..Default::default() }.into()),
        ("prompt 20", PromptTuningConfig { num_virtual_tokens: 20, ..Default::default() }.into()),
        ("IA3", Ia3Config::default().into()),
    ];
    let expected = json["trainable"].as_object().context("counts")?;
    ensure!(expected.len() == methods.len());
    for (name, method) in methods {
        let found = blueprint.estimate(method, &Setup::default())?.report;
        ensure!(Some(found.trainable) == expected[name].as_i64(), "{name}: {found}");
    }
    Ok(())
}

/// With width d, feed-forward f and L layers.
#[test]
fn llama_7b_follows_the_formulas() -> Result<()> {
    let (blueprint, _) = llama7b()?;
    let (d, f, l, vocab) = (4096, 11008, 32, 32000);
    let all = 2 * vocab * d + l * (4 * d * d + 3 * d * f + 2 * d) + d;
    let bottleneck = BottleneckConfig { bottleneck_size: 64, ..BottleneckConfig::default() };
    let projected = PrefixTuningConfig {
        num_virtual_tokens: 10,
        prefix_projection: true,
        encoder_hidden_size: Some(512),
        ..PrefixTuningConfig::default()
    };
    let pissa =
        LoraConfig { init_lora_weights: peft_core::methods::InitLora::Pissa, ..lora(16, &["q_proj"]) };
    let cases: Vec<(Box<dyn MethodConfig>, i64)> = vec![
        (FullConfig::default().into(), all),
        (lora(8, &SEVEN).into(), l * 8 * (4 * 2 * d + 3 * (d + f))),
        (bottleneck.into(), l * 2 * (2 * 64 * d + 64 + d)),
        (projected.into(), 10 * d + 512 * (d + 1) + l * 2 * d * (512 + 1)),
        // Nothing is factorised, or this would take minutes.
        (pissa.into(), l * 16 * 2 * d),
    ];
    ensure!(blueprint.parameters() == all);
    for (method, count) in cases {
        let name = format!("{method:?}");
        let found = blueprint.estimate(method, &Setup::default())?.report;
        ensure!(found.trainable == count, "{name}: {found} for {count}");
    }
    // It has no biases: refused as it would be in training.
    let bitfit = blueprint.estimate(BitFitConfig::default(), &Setup::default());
    ensure!(matches!(bitfit, Err(Error::Idle { .. } | Error::Config { .. })), "{bitfit:?}");
    Ok(())
}

#[test]
fn what_is_wrong_is_said_by_name() -> Result<()> {
    let (blueprint, json) = llama7b()?;
    let setup = Setup::default();
    refused("target", blueprint.estimate(lora(8, &["q_prj"]), &setup), &["q_prj", "q_proj"])?;
    refused("rank", blueprint.estimate(lora(0, &["q_proj"]), &setup), &["r", "positive"])?;
    let with = |field: &str, value: i64| {
        let mut model = json["model"].clone();
        model[field] = value.into();
        Blueprint::read(&model, "edited")
    };
    refused("width", with("hidden_size", -1), &["hidden_size", "edited"])?;
    refused("layers", with("num_hidden_layers", 1 << 40), &["layers", "10000"])?;
    // Nothing overflows, whatever the numbers say.
    refused("words", with("vocab_size", i64::MAX), &["model.embed_tokens"])?;
    refused("family", Blueprint::read(&serde_json::json!({}), "empty"), &["empty", "model_type", "llama"])?;
    refused("no file", Blueprint::open("no/such/model"), &["no/such/model"])?;
    let adapter = tests::golden("llama").join("lora");
    refused("an adapter", Blueprint::open(&adapter), &["config.json", "this is an adapter and no model"])?;
    for n in [i64::MIN, 0, 9_999_999, i64::MAX] {
        refused("about", Blueprint::about(n), &["parameters", "million"])?;
    }
    Ok(())
}

/// 7 and 13 billion are LLaMA's own; others are within a fifth.
#[test]
fn about_is_near() -> Result<()> {
    ensure!(Blueprint::about(7_000_000_000)?.outline() == llama7b()?.0.outline());
    let found = Blueprint::about(13_000_000_000)?;
    ensure!(found.parameters() == 13_015_864_320, "{found}");
    for n in [50_000_000, 300_000_000, 1_000_000_000, 70_000_000_000, 400_000_000_000i64] {
        let found = Blueprint::about(n)?.parameters();
        ensure!((found - n).abs() < n / 5, "{found} for {n}");
    }
    ensure!(Blueprint::about(7_000_000_000)?.outline().dims.model_type == "llama");
    let (made_up, read) = (Blueprint::about(7_000_000_000)?.to_string(), llama7b()?.0.to_string());
    ensure!(made_up.starts_with(&read) && made_up.contains("an assumed shape"), "{made_up}");
    ensure!(!read.contains("assumed"), "{read}");
    Ok(())
}
