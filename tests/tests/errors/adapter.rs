//! Adapter directories: their configurations and their tensors.

use crate::{bert, copy, edit_json, edit_tensors};
use anyhow::{Result, ensure};
use peft_core::Error;
use serde_json::{Value, json};
use tests::{golden, refused};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// Loads the golden adapter with its config changed; the message has to name the file and hold `parts`.
pub(crate) fn load_with(folder: &str, edit: impl FnOnce(&mut Value), parts: &[&str]) -> Result<()> {
    let dir = copy(folder)?;
    let path = dir.path().join(CONFIG);
    edit_json(&path, edit)?;
    let place = path.display().to_string();
    let mut peft = bert()?;
    refused("loading", peft.load("a", dir.path()), &[parts, &[&place]].concat())?;
    ensure!(peft.names().is_empty(), "an adapter was added");
    Ok(())
}

#[test]
fn an_unknown_peft_type_names_the_known_ones() -> Result<()> {
    load_with(
        "bert/lora",
        |c| c["peft_type"] = "BOFT".into(),
        &["peft_type", "`BOFT`", "LORA", "PREFIX_TUNING"],
    )?;
    load_with("bert/lora", |c| c["peft_type"] = 7.into(), &["peft_type", "not a string"])?;
    load_with(
        "bert/lora",
        |c| drop(c.as_object_mut().map(|c| c.remove("peft_type"))),
        &["peft_type", "missing"],
    )?;
    load_with("bert/lora", |c| *c = json!([]), &["peft_type", "missing"])
}

#[test]
fn a_directory_without_a_config() -> Result<()> {
    let dir = copy("bert/lora")?;
    std::fs::remove_file(dir.path().join(CONFIG))?;
    let error = refused("loading", bert()?.load("a", dir.path()), &[CONFIG, "No such file"])?;
    ensure!(matches!(error, Error::File { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_config_that_is_no_json_says_where() -> Result<()> {
    let dir = copy("bert/lora")?;
    std::fs::write(dir.path().join(CONFIG), "{\n \"peft_type\": LORA\n}")?;
    let error = refused("loading", bert()?.load("a", dir.path()), &[CONFIG, "line 2"])?;
    ensure!(matches!(error, Error::Format { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_pickle_says_how_to_convert_it() -> Result<()> {
    let dir = copy("bert/lora")?;
    std::fs::rename(dir.path().join(TENSORS), dir.path().join("adapter_model.bin"))?;
    let parts = ["adapter_model.bin", "is safetensors", "no pickle", "*.safetensors"];
    refused("loading", bert()?.load("a", dir.path()), &parts)?;
    std::fs::copy(golden("pickle/legacy.bin"), dir.path().join("adapter_model.bin"))?;
    let parts =
        [TENSORS, "adapter_model.bin", "pickle", "safe_serialization", "torch.load('adapter_model.bin'"];
    refused("loading", bert()?.load("a", dir.path()), &parts)?;
    std::fs::remove_file(dir.path().join("adapter_model.bin"))?;
    refused("loading", bert()?.load("a", dir.path()), &[TENSORS, "No such file"])?;
    Ok(())
}

#[test]
fn a_truncated_file_is_refused() -> Result<()> {
    let dir = copy("bert/lora")?;
    let path = dir.path().join(TENSORS);
    let bytes = std::fs::read(&path)?;
    for length in [0, 7, 100, bytes.len().saturating_sub(1)] {
        std::fs::write(&path, bytes.get(..length).unwrap_or_default())?;
        refused("loading", bert()?.load("a", dir.path()), &[TENSORS])?;
    }
    Ok(())
}

/// The message of a load names the file, also where the config is well formed and its numbers are wrong.
#[test]
fn a_config_with_wrong_numbers_is_named_by_its_file() -> Result<()> {
    load_with("bert/lora", |c| c["r"] = 0.into(), &["r:", "positive"])?;
    load_with("bert/lora", |c| c["lora_dropout"] = 1.5.into(), &["lora_dropout", "1.5"])?;
    load_with("bert/prompt", |c| c["token_dim"] = 64.into(), &["token_dim", "64", "32"])
}

/// As above, for a field of the wrong type.
#[test]
fn a_config_with_wrong_types_names_the_field() -> Result<()> {
    load_with("bert/lora", |c| c["r"] = "four".into(), &["adapter_config.json: r:", "four"])?;
    for (folder, field, value, expected) in [
        ("lora", "target_modules", json!(3), "a name, or a list of names"),
        ("lora", "exclude_modules", json!([3]), "a name, or a list of names"),
        ("lora", "layers_to_transform", json!("0"), "a layer number, or a list of them"),
        ("lora", "init_lora_weights", json!(1), "true, false or a name"),
        ("lora", "trainable_token_indices", json!(1), "a list of tokens, or lists by layer"),
        ("lokr", "init_weights", json!(1), "true, false or \"lycoris\""),
    ] {
        let parts = [field, expected, &value.to_string()];
        load_with(&format!("bert/{folder}"), |c| c[field] = value.clone(), &parts)?;
    }
    load_with("bert/lora", |c| c["task_type"] = "SEQ_CLASS".into(), &["task_type", "SEQ_CLASS"])
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() -> Result<()> {
    for (field, value) in [("layer_replication", json!([[0, 1]])), ("use_qalora", json!(true))] {
        load_with("bert/lora", |c| c[field] = value.clone(), &[field, &value.to_string(), "not supported"])?;
    }
    // In a file these change nothing, and it is said where nobody knows them; a user who writes them means something.
    for (field, value, said) in [
        ("loftq_config", json!({ "loftq_bits": 4 }), false),
        ("eva_config", json!({ "rho": 2 }), false),
        ("a_field_of_next_year", json!("something"), true),
        ("a_number_of_next_year", json!(0), true),
        ("a_switch_of_next_year", json!(true), true),
    ] {
        let dir = copy("bert/lora")?;
        edit_json(&dir.path().join(CONFIG), |c| c[field] = value.clone())?;
        let strict =
            peft_core::methods::from_json(peft_core::io::read_json(dir.path().join(CONFIG))?, "a user");
        refused(field, strict, &["a user", field, &value.to_string(), "not supported"])?;
        let warnings = bert()?.load("a", dir.path())?;
        let named = warnings.iter().any(|w| w.field == field && w.place.ends_with(CONFIG));
        ensure!(named == said && warnings.len() == usize::from(said), "{field}: {warnings:?}");
    }
    let field = "num_transformer_submodules";
    load_with("bert/prefix", |c| c[field] = 2.into(), &[field, "2", "only 1 is"])
}

/// What says nothing is kept, and written again.
#[test]
fn an_unknown_field_that_is_empty_survives() -> Result<()> {
    let (dir, out) = (copy("bert/lora")?, tempfile::tempdir()?);
    let fields =
        [("x_null", json!(null)), ("x_false", json!(false)), ("x_list", json!([])), ("x_map", json!({}))];
    let described = [("revision", json!("v2")), ("auto_mapping", json!({ "base_model_class": "Bert" }))];
    edit_json(&dir.path().join(CONFIG), |c| {
        for (field, value) in fields.iter().chain(&described) {
            c[*field] = value.clone();
        }
    })?;
    let mut peft = bert()?;
    peft.load("a", dir.path())?;
    peft.save("a", out.path())?;
    let written = peft_core::io::read_json(out.path().join(CONFIG))?;
    for (field, value) in fields.iter().chain(&described) {
        ensure!(written.get(field) == Some(value), "{field}: {:?}, expected {value}", written.get(field));
    }
    Ok(())
}

/// A name in a file is what it is, dots included.
#[test]
fn a_name_is_compared_as_it_is() -> Result<()> {
    let dir = copy("bert/prompt")?;
    for wrong in [".prompt_embeddings", "prompt_embeddings."] {
        edit_tensors(&dir.path().join(TENSORS), |all| {
            let first = all.keys().find(|name| name.contains("prompt_embeddings")).cloned();
            if let Some(t) = first.and_then(|name| all.remove(&name)) {
                all.insert(wrong.into(), t);
            }
        })?;
        refused(wrong, bert()?.load("a", dir.path()), &[TENSORS, &format!("`{wrong}`")])?;
    }
    Ok(())
}

/// Integers are no weights; found at the first forward pass, the message is libtorch's and names no file.
#[test]
fn a_tensor_of_integers_is_refused_when_it_is_loaded() -> Result<()> {
    let dir = copy("bert/lora")?;
    let name = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_A.weight";
    edit_tensors(&dir.path().join(TENSORS), |all| {
        let int = all[name].to_kind(tch::Kind::Int64);
        all.insert(name.into(), int);
    })?;
    refused("loading", bert()?.load("a", dir.path()), &[TENSORS, name])?;
    Ok(())
}
