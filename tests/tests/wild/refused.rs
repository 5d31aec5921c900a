//! What PEFT reads, or passes over, and this crate refuses: it would change the numbers, or nobody could tell.

use crate::{case, llama, open};
use anyhow::{Result, ensure};
use peft_core::io;
use peft_core::io::tensors;
use peft_core::methods::{Common, LoraConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tch::Tensor;
use tests::{refused, serial};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// The head that is asked for, and the one there is.
#[test]
fn adapters_for_other_heads() -> Result<()> {
    let _serial = serial();
    let bert = || open("bert");
    let words = [CONFIG, "task_type", "TOKEN_CLS", "SEQ_CLS"];
    refused("tokens", bert()?.load("a", case("other_tasks_token_cls")), &words)?;
    let words = [CONFIG, "task_type", "FEATURE_EXTRACTION", "SEQ_CLS"];
    refused("no head", bert()?.load("a", case("automodel_adapter_bert")), &words)?;
    let words = [CONFIG, "task_type", "SEQ_CLS", "CAUSAL_LM"];
    refused("classes", llama()?.load("a", case("llama_seqcls")), &words)?;
    // Nor is one added that no model of its task would have made.
    let config = LoraConfig { common: Common::classifier(), ..LoraConfig::default() };
    refused("added", llama()?.add("a", config), &["task_type", "SEQ_CLS", "CAUSAL_LM"])?;
    // The same words where the task is not said: the names are of a model without a head.
    let dir = tests::copied(&case("automodel_adapter_bert"))?;
    edit(dir.path(), json!({ "task_type": null }))?;
    let words = [TENSORS, "encoder.layer.0", "`bert.encoder.layer.0", "without a head", "`classifier`"];
    refused("no head, no task", bert()?.load("a", dir.path()), &words)?;
    Ok(())
}

fn edit(dir: &std::path::Path, changes: Value) -> Result<()> {
    let path = dir.join(CONFIG);
    let mut json = io::read_json(&path)?;
    for (field, value) in changes.as_object().into_iter().flatten() {
        json[field] = value.clone();
    }
    Ok(io::write_json(&path, &json)?)
}

/// A field with a value that changes the numbers of a loaded adapter.
#[test]
fn fields_that_change_numbers() -> Result<()> {
    let _serial = serial();
    for (field, value) in [
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("pissa_niter_16")),
        ("init_lora_weights", json!("mica")),
        ("alora_invocation_tokens", json!([1, 2])),
        ("arrow_config", json!({ "top_k": 2 })),
        ("kasa_config", json!({ "beta": 0.1 })),
        ("layer_replication", json!([[0, 2], [1, 2]])),
        ("use_qalora", json!(true)),
        ("use_bdlora", json!({ "n": 2 })),
    ] {
        let dir = tests::copied(&case("init_kinds_orthogonal"))?;
        edit(dir.path(), json!({ field: value }))?;
        let mut peft = llama()?;
        refused(&format!("{field} {value}"), peft.load("a", dir.path()), &[CONFIG, field, "not supported"])?;
        ensure!(peft.names().is_empty(), "{field}: it was added all the same");
    }
    Ok(())
}

type Tensors = BTreeMap<String, Tensor>;

fn edited(change: impl Fn(Tensors) -> Tensors, parts: &[&str]) -> Result<()> {
    let dir = tests::copied(&case("init_kinds_orthogonal"))?;
    let path = dir.path().join(TENSORS);
    tensors::write(&path, &change(tensors::read(&path)?))?;
    let mut peft = llama()?;
    refused(&parts.join(" "), peft.load("a", dir.path()), &[&[TENSORS], parts].concat())?;
    ensure!(peft.names().is_empty(), "it was added all the same");
    Ok(())
}

const KEY: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

#[test]
fn tensors_that_cannot_be_meant() -> Result<()> {
    let _serial = serial();
    for bad in [f64::NAN, f64::INFINITY] {
        let broken = |mut all: Tensors| {
            let t = all[KEY].copy();
            let _ = t.get(0).get(3).fill_(bad);
            all.insert(KEY.into(), t);
            all
        };
        edited(broken, &[KEY, "NaN or infinite"])?;
    }
    let prefixless =
        |all: Tensors| all.into_iter().map(|(k, t)| (k.replacen("base_model.model.", "", 1), t)).collect();
    edited(prefixless, &["lacks `base_model.model.`", "put it before every name"])?;
    let twice = |mut all: Tensors| {
        let t = all[KEY].copy();
        all.insert(KEY.replace("lora_A.", "lora_A.default."), t);
        all
    };
    edited(twice, &[KEY, "is there twice"])
}

#[test]
fn configurations_that_are_something_else() -> Result<()> {
    let _serial = serial();
    for (text, parts) in [
        ("[\"LORA\", 8]", &["JSON object"] as &[&str]),
        ("{}", &["peft_type", "is missing"]),
        (
            "{\"fine_tune_type\": \"lora\", \"num_layers\": 16, \"lora_parameters\": {\"rank\": 8}}",
            &["peft_type", "MLX"],
        ),
    ] {
        let dir = tests::copied(&case("init_kinds_orthogonal"))?;
        std::fs::write(dir.path().join(CONFIG), text)?;
        refused(text, llama()?.load("a", dir.path()), &[&[CONFIG], parts].concat())?;
        // The tensors of other programs have other names.
        std::fs::rename(
            dir.path().join("adapter_model.safetensors"),
            dir.path().join("adapters.safetensors"),
        )?;
        refused(text, llama()?.load("a", dir.path()), &[&[CONFIG], parts].concat())?;
    }
    Ok(())
}
