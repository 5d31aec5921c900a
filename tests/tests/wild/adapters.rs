//! Files that PEFT reads, and this crate as PEFT does.

use crate::{case, expected, llama, logits, text, tied};
use anyhow::{Context, Result, ensure};
use peft_core::io;
use peft_core::io::tensors;
use peft_core::methods::LoraConfig;
use peft_core::seam::MethodConfig;
use peft_core::{Batch, Peft};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use tch::Tensor;
use tests::subject::move_trained;
use tests::{assert_bits, assert_close, refused, serial};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// Loads a case, compares with Python, saves, loads again: the numbers of Python, and a file that says the same.
fn as_python(base: fn() -> Result<Peft>, name: &str, said: &[&str]) -> Result<()> {
    let mut peft = base()?;
    let warnings = text(&peft.load("a", case(name))?);
    for words in said {
        ensure!(warnings.contains(words), "{name}: the warnings lack `{words}`: {warnings}");
    }
    ensure!(said.is_empty() == warnings.is_empty(), "{name}: {warnings}");
    let (batch, python) = expected(name)?;
    let found = logits(&peft, &["a"], &batch)?;
    assert_close(name, &found, &python, 1e-5)?;

    let dir = tempfile::tempdir()?;
    peft.save("a", dir.path())?;
    same_config(&case(name), dir.path())?;
    let again = text(&peft.load("again", dir.path())?);
    assert_bits("again", &logits(&peft, &["again"], &batch)?, &found)?;
    peft.copy("a", "copy")?;
    assert_bits("copied", &logits(&peft, &["copy"], &batch)?, &found)?;
    // A copy and a second round say what the first did, but for the spelling of keys.
    let fields = |all: &str| all.lines().filter(|l| l.contains(CONFIG)).count();
    ensure!(fields(&again) == fields(&warnings), "{name}: {again}");
    assert_close("merged", &logits(&peft.merged(&["a"])?, &[], &batch)?, &found, 1e-5)
}

/// What PEFT wrote is written back: both files, byte by byte, of every method and family of the goldens.
#[test]
fn what_peft_wrote_is_written_back() -> Result<()> {
    fn family(name: &str) -> Result<usize> {
        let (mut peft, mut count) = (crate::open(name)?, 0);
        for entry in std::fs::read_dir(tests::golden(name))? {
            let from = entry?.path();
            if !from.join(CONFIG).exists() {
                continue;
            }
            peft.load("a", &from)?;
            let dir = tempfile::tempdir()?;
            peft.save("a", dir.path())?;
            for file in [CONFIG, TENSORS] {
                let [one, two] = [&from, &dir.path().to_owned()].map(|dir| std::fs::read(dir.join(file)));
                ensure!(sorted(&one?) == sorted(&two?), "{} is not {file} as it was", from.display());
            }
            peft.delete("a")?;
            count += 1;
        }
        Ok(count)
    }
    let _serial = serial();
    let count = family("llama")? + family("gpt2")? + family("bert")?;
    ensure!(count > 60, "{count} adapters");
    Ok(())
}

/// The lines of a text, those of lists that are sets in Python in one order.
fn sorted(bytes: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_owned() };
    let (mut lines, mut list): (Vec<&str>, Vec<&str>) = Default::default();
    for line in text.lines() {
        match line.strip_prefix("    \"") {
            Some(_) if !line.contains(": ") => list.push(line.trim_end_matches(',')),
            _ => {
                list.sort_unstable();
                lines.append(&mut list);
                lines.push(line);
            }
        }
    }
    lines.join("\n").into_bytes()
}

/// The same fields with the same values; lists are sets.
fn same_config(one: &Path, two: &Path) -> Result<()> {
    let read = |dir: &Path| io::read_json(dir.join(CONFIG));
    let (one, two) = (read(one)?, read(two)?);
    let (one, two) = (one.as_object().context("object")?, two.as_object().context("object")?);
    let set = |v: &Value| match v {
        Value::Array(all) => all.iter().map(Value::to_string).collect::<BTreeSet<_>>(),
        other => BTreeSet::from([other.to_string()]),
    };
    for field in one.keys().chain(two.keys()) {
        let pair = [one.get(field), two.get(field)].map(|v| set(v.unwrap_or(&Value::Null)));
        ensure!(pair[0] == pair[1], "{field}: {:?} became {:?}", pair[0], pair[1]);
    }
    Ok(())
}

#[test]
fn names_that_the_model_lacks_beside_others() -> Result<()> {
    let _serial = serial();
    as_python(llama, "target_names_absent", &["`proj` matches nothing", "`qkv`", "`xxx`", "target_modules"])?;
    as_python(llama, "init_kinds_mts_absent", &["`score`", "`classifier`", "modules_to_save"])?;
    as_python(llama, "init_kinds_rank_pattern_absent", &["rank_pattern", "alpha_pattern", "`mlp.up_proj`"])
}

#[test]
fn fields_that_change_no_number() -> Result<()> {
    let _serial = serial();
    for quiet in ["eva", "orthogonal", "loftq_cfg_only", "dora_null"] {
        as_python(llama, &format!("init_kinds_{quiet}"), &[])?;
    }
    as_python(llama, "init_kinds_future_field", &["some_new_config", "runtime_config", "not known here"])
}

#[test]
fn keys_in_other_spellings() -> Result<()> {
    let _serial = serial();
    as_python(llama, "key_forms_default", &["lora_A.default.weight", "8 names"])?;
    as_python(llama, "key_forms_dora_weight", &["lora_magnitude_vector.weight", "6 names"])
}

#[test]
fn tied_models() -> Result<()> {
    let _serial = serial();
    for name in ["lora_embed", "mts_embed_tying", "tie_targets", "tie_targets_dora", "tie_mts"] {
        as_python(tied, &format!("../tied/{name}"), &[])?;
    }
    // Where the head is not tied, there is nothing to ensure: as in PEFT.
    let mut peft = llama()?;
    let dir = tests::copied(&case("init_kinds_orthogonal"))?;
    edit(dir.path(), "ensure_weight_tying", Value::Bool(true))?;
    let said = text(&peft.load("a", dir.path())?);
    ensure!(said.contains("ensure_weight_tying"), "{said}");
    let config =
        LoraConfig { ensure_weight_tying: true, targets: ["embed_tokens"].into(), ..LoraConfig::default() };
    refused("untied", peft.add("b", config), &["ensure_weight_tying"])?;
    Ok(())
}

/// What is written for a tied model is what PEFT writes: the same names.
#[test]
fn what_is_tied_is_written_as_peft_writes_it() -> Result<()> {
    let _serial = serial();
    for name in ["tie_targets", "tie_targets_dora", "tie_mts"] {
        let (mut peft, folder) = (tied()?, tests::golden("tied").join(name));
        peft.load("a", &folder)?;
        let dir = tempfile::tempdir()?;
        peft.save("a", dir.path())?;
        let (one, two) = (tensors::read(folder.join(TENSORS))?, tensors::read(dir.path().join(TENSORS))?);
        ensure!(one.keys().eq(two.keys()), "{name}: {:?}", two.keys());
        one.iter().try_for_each(|(key, t)| assert_bits(key, &two[key], t))?;
        // And trained, it stays tied: merged, there is one tensor.
        move_trained(peft.params("a")?, 3)?;
        if name != "tie_targets_dora" {
            ensure!(
                peft.merged(&["a"])?.base().find("lm_head.weight").is_none(),
                "{name}: the head was untied"
            );
        }
    }
    Ok(())
}

fn edit(dir: &Path, field: &str, value: Value) -> Result<()> {
    let path = dir.join(CONFIG);
    let mut json = io::read_json(&path)?;
    json[field] = value;
    Ok(io::write_json(&path, &json)?)
}

/// The two doors: what is passed over in a file is an error where a user writes it.
#[test]
fn adding_is_strict_where_loading_is_not() -> Result<()> {
    let _serial = serial();
    for (name, words) in [
        ("target_names_absent", "`proj` in target_modules"),
        ("init_kinds_mts_absent", "in modules_to_save matches nothing"),
        ("init_kinds_rank_pattern_absent", "rank_pattern"),
        ("init_kinds_eva", "eva"),
        ("init_kinds_orthogonal", "orthogonal"),
        ("init_kinds_loftq_cfg_only", "loftq_config"),
        ("init_kinds_future_field", "runtime_config"),
        ("init_kinds_dora_null", "use_dora"),
    ] {
        let json = io::read_json(case(name).join(CONFIG))?;
        let strict = |json| -> peft_core::Result<()> {
            let method: Box<dyn MethodConfig> = peft_core::methods::from_json(json, "a user")?;
            llama().map_err(|e| peft_core::Error::Input(e.to_string()))?.add("a", method)
        };
        refused(name, strict(json), &[words])?;
    }
    Ok(())
}

/// An error only if nothing matches, and then of the first name.
#[test]
fn a_file_of_which_nothing_matches() -> Result<()> {
    let _serial = serial();
    let mut peft = llama()?;
    let dir = tests::copied(&case("target_names_absent"))?;
    edit(dir.path(), "target_modules", serde_json::json!(["query", "valve"]))?;
    refused("nothing", peft.load("a", dir.path()), &[CONFIG, "target_modules", "matches nothing"])?;
    // A whole string is one pattern.
    edit(dir.path(), "target_modules", "query|value".into())?;
    refused("a pattern", peft.load("a", dir.path()), &[CONFIG, "target_modules", "matches nothing"])?;
    // What a lacking name has tensors for is not passed over.
    edit(dir.path(), "target_modules", serde_json::json!(["q_proj", "valve"]))?;
    refused("its tensors", peft.load("a", dir.path()), &[TENSORS, "v_proj.lora_A.weight", "nothing reads"])?;
    edit(dir.path(), "target_modules", serde_json::json!(["q_proj", "v_proj"]))?;
    edit(dir.path(), "layers_to_transform", serde_json::json!([0, 1, 7]))?;
    let said = text(&peft.load("a", dir.path())?);
    ensure!(said.contains("layers_to_transform: `layer 7`") && peft.names() == ["a"], "{said}");
    Ok(())
}

/// Nulls: false or empty where Python asks whether there is something, and an error where it would compute with it.
#[test]
fn nulls() -> Result<()> {
    let _serial = serial();
    let (batch, python) = expected("init_kinds_orthogonal")?;
    for (field, taken) in [
        ("use_rslora", true),
        ("init_lora_weights", true),
        ("rank_pattern", true),
        ("alpha_pattern", true),
        ("fan_in_fan_out", true),
        ("peft_version", true),
        ("task_type", true),
        ("r", false),
        ("lora_alpha", false),
        ("lora_dropout", false),
        ("bias", false),
    ] {
        let dir = tests::copied(&case("init_kinds_orthogonal"))?;
        edit(dir.path(), "init_lora_weights", true.into())?;
        edit(dir.path(), field, Value::Null)?;
        let mut peft = llama()?;
        if !taken {
            refused(field, peft.load("a", dir.path()), &[CONFIG, field, "null"])?;
            continue;
        }
        ensure!(peft.load("a", dir.path())?.is_empty(), "{field}: something was said");
        assert_close(field, &logits(&peft, &["a"], &batch)?, &python, 1e-5)?;
        let out = tempfile::tempdir()?;
        peft.save("a", out.path())?;
        ensure!(
            field == "peft_version" || io::read_json(out.path().join(CONFIG))?[field].is_null(),
            "{field}"
        );
    }
    Ok(())
}

/// Every field of names: one that is absent beside those that are there is kept and said, in any method.
#[test]
fn absent_names_in_other_methods() -> Result<()> {
    let _serial = serial();
    for (folder, field, value) in [
        ("ia3", "target_modules", "dense_h_to_4h"),
        ("loha", "target_modules", "query_key_value"),
        ("oft", "target_modules", "Wqkv"),
        ("vera", "target_modules", "query"),
        ("ln_tuning", "target_modules", "LayerNorm"),
        ("adalora", "target_modules", "query"),
        ("lora_mts", "modules_to_save", "classifier"),
        ("lora", "exclude_modules", "nothing.*"),
    ] {
        let from = tests::golden("llama").join(folder);
        let dir = tests::copied(&from)?;
        let mut json = io::read_json(from.join(CONFIG))?;
        for field in [field, "feedforward_modules"] {
            match json.get_mut(field) {
                Some(Value::Array(all)) => all.push(value.into()),
                Some(other) if field != "feedforward_modules" => *other = value.into(),
                _ => {}
            }
        }
        io::write_json(dir.path().join(CONFIG), &json)?;
        let mut peft = llama()?;
        let said = text(&peft.load("a", dir.path())?);
        ensure!(said.contains(field) && said.contains(value), "{folder}: {said}");
        let out = tempfile::tempdir()?;
        peft.save("a", out.path())?;
        same_config(dir.path(), out.path()).with_context(|| folder.to_owned())?;
        if field != "exclude_modules" {
            peft.load("plain", &from)?;
            let ids = Tensor::from_slice(&[5i64, 17, 2, 60]).view([1, 4]);
            let batch = Batch::dense(ids);
            assert_bits(folder, &logits(&peft, &["a"], &batch)?, &logits(&peft, &["plain"], &batch)?)?;
        }
    }
    Ok(())
}
