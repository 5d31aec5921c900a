//! Weights of the base inside of PEFT's wrappers: beside copies, below trained tokens, under a head that is tied.

use crate::{case, expected, llama, logits, open, text, tied};
use anyhow::{Context, Result, ensure};
use peft_core::combine::{Combination, Settings};
use peft_core::io;
use peft_core::io::tensors;
use peft_core::methods::{Ia3Config, LoraConfig};
use peft_core::target::Names;
use peft_core::{Batch, NewRows, Peft};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};
use tempfile::TempDir;
use tests::subject::move_trained;
use tests::{assert_bits, assert_close, copied, golden, golden_tensors, refused, serial};

const TENSORS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

/// The case's files with other tensors.
fn changed(name: &str, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Result<TempDir> {
    let dir = copied(&case(name))?;
    let mut all = tensors::read(dir.path().join(TENSORS))?;
    change(&mut all);
    tensors::write(dir.path().join(TENSORS), &all)?;
    Ok(dir)
}

/// Python's numbers, also from the file that is written, merged, as a copy, as a LoRA, and nearly so over bf16.
fn as_python(base: &Peft, dir: &Path, name: &str, rank: i64) -> Result<String> {
    let mut peft = base.to_kind(Kind::Float)?;
    let said = text(&peft.load("a", dir)?);
    let (batch, python) = expected(name)?;
    let found = logits(&peft, &["a"], &batch)?;
    assert_close(name, &found, &python, 1e-5)?;
    let out = tempfile::tempdir()?;
    peft.save("a", out.path())?;
    peft.load("again", out.path())?;
    assert_bits("again", &logits(&peft, &["again"], &batch)?, &found)?;
    ensure!(peft.report(&["again"])? == peft.report(&["a"])?, "{}", peft.report(&["again"])?);
    peft.copy("a", "copy")?;
    assert_bits("copied", &logits(&peft, &["copy"], &batch)?, &found)?;
    assert_close("merged", &logits(&peft.merged(&["a"])?, &[], &batch)?, &found, 1e-5)?;
    peft.to_lora("a", "lora", rank)?;
    assert_close("as LoRA", &logits(&peft, &["lora"], &batch)?, &found, 1e-4)?;
    let mut half = base.to_kind(Kind::BFloat16)?;
    half.load("a", dir)?;
    let rounded = logits(&half, &["a"], &batch)?;
    assert_close("bf16", &rounded, &found, 5e-2)?;
    assert_close("bf16 merged", &logits(&half.merged(&["a"])?, &[], &batch)?, &rounded, 5e-2)?;
    Ok(said)
}

/// Of a resized vocabulary, PEFT writes a copy (`modules_to_save`) under three names.
#[test]
fn a_resized_embedding_with_copies() -> Result<()> {
    let _serial = serial();
    for base in [llama()?.resized_for(case("wrapped_copies"))?, llama()?.resized(40, NewRows::Drawn)?] {
        let said = as_python(&base, &case("wrapped_copies"), "wrapped_copies", 4)?;
        ensure!(said.is_empty(), "{said}");
    }
    // The head of a tied model follows the base's weight, which the file has beside the copy.
    for base in [tied()?.resized_for(case("wrapped_tied_copy"))?, tied()?.resized(99, NewRows::Drawn)?] {
        as_python(&base, &case("wrapped_tied_copy"), "wrapped_tied_copy", 40)?;
    }
    let key = "base_model.model.lm_head.modules_to_save.weight";
    let two = changed("wrapped_copies", |all| drop(all.insert(key.into(), &all[key] * 2)))?;
    let mut peft = llama()?.resized_for(case("wrapped_copies"))?;
    refused("two copies", peft.load("a", two.path()), &[TENSORS, key, "lm_head.weight", "should be equal"])?;
    // What the base has in its place has no effect, and is said where it differs.
    let key = "base_model.model.lm_head.original_module.weight";
    let other = changed("wrapped_copies", |all| drop(all.insert(key.into(), &all[key] * 2)))?;
    let said = as_python(&peft, other.path(), "wrapped_copies", 4)?;
    ensure!(said.contains(key) && said.contains("has no effect"), "{said}");
    Ok(())
}

#[test]
fn a_resized_embedding_below_trained_tokens() -> Result<()> {
    let _serial = serial();
    for base in [tied()?.resized_for(case("wrapped_tied_tokens"))?, tied()?.resized(99, NewRows::Drawn)?] {
        as_python(&base, &case("wrapped_tied_tokens"), "wrapped_tied_tokens", 40)?;
    }
    Ok(())
}

/// A tied head with an adapter of its own, beside a copy of the embedding: the file has the head's frozen weight.
#[test]
fn a_tied_head_beside_a_copy_of_the_embedding() -> Result<()> {
    let _serial = serial();
    let said = as_python(&tied()?, &case("wrapped_tied_head"), "wrapped_tied_head", 40)?;
    ensure!(said.is_empty(), "{said}");
    // Another value of it is in force, at the head alone.
    let key = "base_model.model.lm_head.base_layer.weight";
    let dir = changed("wrapped_tied_head", |all| drop(all.insert(key.into(), &all[key] * 3)))?;
    let mut peft = tied()?;
    let said = text(&peft.load("a", dir.path())?);
    ensure!(said.contains(key) && said.contains("in force"), "{said}");
    peft.load("plain", case("wrapped_tied_head"))?;
    let (batch, python) = expected("wrapped_tied_head")?;
    let found = logits(&peft, &["a"], &batch)?;
    ensure!(tests::relative_error(&found, &python)? > 0.1, "the weight is not in force");
    assert_bits("the other", &logits(&peft, &["plain"], &batch)?, &logits(&peft, &["plain"], &batch)?)?;
    assert_close("merged", &logits(&peft.merged(&["a"])?, &[], &batch)?, &found, 1e-5)?;
    ensure!(peft.report(&["a"])? == peft.report(&["plain"])?, "{}", peft.report(&["a"])?);
    Ok(())
}

/// AdaLoRA has the field, too.
#[test]
fn adalora_keeps_a_copy_tied() -> Result<()> {
    let _serial = serial();
    as_python(&tied()?, &case("wrapped_tied_adalora"), "wrapped_tied_adalora", 12)?;
    let mut peft = tied()?;
    peft.load("a", case("wrapped_tied_adalora"))?;
    let out = tempfile::tempdir()?;
    peft.save("a", out.path())?;
    let [one, two] = [case("wrapped_tied_adalora"), out.path().to_owned()]
        .map(|dir| tensors::read(dir.join(TENSORS)).map(|all| all.into_keys().collect::<Vec<_>>()));
    ensure!(one? == two?, "the files differ");
    move_trained(peft.params("a")?, 3)?;
    ensure!(peft.merged(&["a"])?.base().find("lm_head.weight").is_none(), "the head was untied");
    Ok(())
}

/// GPT-2's embedding has none of the names that PEFT looks for: the file names the head, so that it stays tied.
#[test]
fn what_is_tied_by_other_names_is_read_again() -> Result<()> {
    let _serial = serial();
    let batch = Batch::dense(Tensor::from_slice(&[5i64, 17, 2, 60]).view([1, 4]));
    let head = || Names::list(["lm_head"]);
    let copy = LoraConfig { targets: ["c_attn"].into(), ..LoraConfig::default() };
    let mut copy = LoraConfig { ensure_weight_tying: true, ..copy };
    copy.common.modules_to_save = Some(vec!["lm_head".into()]);
    let change = LoraConfig { targets: head().into(), ensure_weight_tying: true, ..LoraConfig::default() };
    for config in [copy, change] {
        let mut peft = open("gpt2")?;
        peft.add("a", config)?;
        move_trained(peft.params("a")?, 3)?;
        let out = tempfile::tempdir()?;
        peft.save("a", out.path())?;
        peft.load("again", out.path())?;
        let found = logits(&peft, &["a"], &batch)?;
        assert_bits("again", &logits(&peft, &["again"], &batch)?, &found)?;
        ensure!(peft.report(&["again"])? == peft.report(&["a"])?, "{}", peft.report(&["again"])?);
        let merged = peft.merged(&["again"])?;
        assert_close("merged", &logits(&merged, &[], &batch)?, &found, 1e-5)?;
        ensure!(merged.base().find("lm_head.weight").is_none(), "the head was untied");
    }
    Ok(())
}

/// Rows of the head are none of the embedding's, unless they are tied.
#[test]
fn a_file_with_the_head_alone_resizes_no_embedding() -> Result<()> {
    let _serial = serial();
    let dir = changed("resized_vocab_auto_saved", |all| all.retain(|key, _| !key.contains("embed_tokens")))?;
    refused(
        "the head alone",
        llama()?.resized_for(dir.path()),
        &[TENSORS, "no `model.embed_tokens.weight`"],
    )?;
    let dir = changed("resized_vocab_auto_saved", |all| all.retain(|key, _| !key.contains("lm_head")))?;
    refused("no head", llama()?.resized_for(dir.path()), &[TENSORS, "no `lm_head.weight`"])?;
    let base = tied()?.resized_for(dir.path())?;
    ensure!(base.outline().dims.sizes()?.vocab == 99, "{}", base.outline().dims.sizes()?.vocab);
    Ok(())
}

/// PEFT looks for the weight of an adapted layer one level deeper, and passes over one that is not there.
#[test]
fn the_weight_of_an_adapted_layer_without_its_wrapper() -> Result<()> {
    let _serial = serial();
    let q = "model.layers.0.self_attn.q_proj.weight";
    let own = llama()?.base().find(q).context("weight")?;
    let key = format!("base_model.model.{q}");
    let same = changed("init_kinds_orthogonal", |all| drop(all.insert(key.clone(), own.copy())))?;
    let said = text(&llama()?.load("a", same.path())?);
    ensure!(said.contains("as the base has it"), "{said}");
    let other = changed("init_kinds_orthogonal", |all| drop(all.insert(key.clone(), &own * 2)))?;
    refused("other", llama()?.load("a", other.path()), &[TENSORS, &key, "nothing reads"])?;
    Ok(())
}

/// One tensor under two spellings, as PEFT writes DoRA's magnitude of a whole embedding.
#[test]
fn one_tensor_under_two_spellings() -> Result<()> {
    let _serial = serial();
    let twice = |factor: f64| {
        changed("key_forms_dora_weight", |all| {
            let more: Vec<_> =
                all.iter().filter(|(key, _)| key.ends_with("magnitude_vector.weight")).collect();
            let more: Vec<_> =
                more.iter().map(|(key, t)| (key.replace("vector.weight", "vector"), *t * factor)).collect();
            all.extend(more);
        })
    };
    let (batch, python) = expected("key_forms_dora_weight")?;
    let mut peft = llama()?;
    peft.load("a", twice(1.0)?.path())?;
    assert_close("equal", &logits(&peft, &["a"], &batch)?, &python, 1e-5)?;
    refused("other", peft.load("b", twice(2.0)?.path()), &[TENSORS, "is there twice"])?;
    Ok(())
}

/// What was passed over in a file is in nobody's way later.
#[test]
fn adapters_with_absent_names_are_combined_and_converted() -> Result<()> {
    let _serial = serial();
    let (batch, python) = expected("target_names_absent")?;
    let mut peft = llama()?;
    peft.load("a", case("target_names_absent"))?;
    peft.combine("cat", &[("a", 1.0)], Combination::Cat)?;
    peft.to_lora("a", "lora", 8)?;
    for name in ["cat", "lora"] {
        assert_close(name, &logits(&peft, &[name], &batch)?, &python, 1e-5)?;
    }
    let mut peft = llama()?;
    let dir = copied(&case("init_kinds_mts_absent"))?;
    peft.load("a", dir.path())?;
    peft.combine("linear", &[("a", 1.0)], Combination::named("linear", Settings::default())?)?;
    Ok(())
}

/// (IA)³ beside the base's own weights, as they are.
#[test]
fn ia3_with_weights_beside_is_combined() -> Result<()> {
    let _serial = serial();
    let mut peft = llama()?;
    let targets = ["lm_head"].into();
    let none = Some(Names::list([""; 0]));
    peft.add("a", Ia3Config { targets, feedforward_modules: none, ..Ia3Config::default() })?;
    move_trained(peft.params("a")?, 3)?;
    let dir = tempfile::tempdir()?;
    peft.save("a", dir.path())?;
    let mut all = tensors::read(dir.path().join(TENSORS))?;
    let head = peft.base().find("lm_head.weight").context("head")?;
    all.insert("base_model.model.lm_head.base_layer.weight".into(), head.copy());
    tensors::write(dir.path().join(TENSORS), &all)?;
    peft.load("b", dir.path())?;
    peft.combine("c", &[("b", 1.0)], Combination::named("linear", Settings::default())?)?;
    let batch = Batch::dense(Tensor::from_slice(&[5i64, 17, 2, 60]).view([1, 4]));
    assert_bits("combined", &logits(&peft, &["c"], &batch)?, &logits(&peft, &["a"], &batch)?)
}

/// PEFT fills it in.
#[test]
fn the_number_of_submodules_may_be_null() -> Result<()> {
    let _serial = serial();
    for method in ["prompt", "prefix", "ptuning"] {
        let from = golden("llama").join(method);
        let dir = copied(&from)?;
        let mut json = io::read_json(from.join(CONFIG))?;
        json["num_transformer_submodules"] = serde_json::Value::Null;
        io::write_json(dir.path().join(CONFIG), &json)?;
        let mut peft = llama()?;
        ensure!(peft.load("a", dir.path())?.is_empty(), "{method}: something was said");
        let g = golden_tensors(&from)?;
        let batch = Batch { mask: Some(g["attention_mask"].copy()), ..Batch::dense(g["input_ids"].copy()) };
        assert_close(method, &logits(&peft, &["a"], &batch)?, &g["logits"], 1e-5)?;
    }
    Ok(())
}
