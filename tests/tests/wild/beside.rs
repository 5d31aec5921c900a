//! Weights of the base beside an adapter's own.

use crate::{case, expected, llama, logits, text};
use anyhow::{Result, ensure};
use peft_core::combine::Combination;
use peft_core::io::tensors;
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;
use tempfile::TempDir;
use tests::{assert_bits, assert_close, refused, serial};

const TENSORS: &str = "adapter_model.safetensors";
const CASE: &str = "init_kinds_orthogonal";

/// An adapter with tensors of the base beside its own, changed by `change`.
fn with_base(change: impl Fn(&str, &Tensor) -> Option<Tensor>) -> Result<TempDir> {
    let dir = tests::copied(&case(CASE))?;
    let mut all = tensors::read(dir.path().join(TENSORS))?;
    for (name, t) in llama()?.base().tensors() {
        let adapted = ["q_proj", "v_proj"].iter().any(|leaf| name.contains(leaf));
        let name_in_file = if adapted { name.replace(".weight", ".base_layer.weight") } else { name.clone() };
        all.extend(change(&name, &t).map(|t| (format!("base_model.model.{name_in_file}"), t)));
    }
    tensors::write(dir.path().join(TENSORS), &all)?;
    Ok(dir)
}

fn read(dir: &Path) -> Result<BTreeMap<String, Tensor>> {
    Ok(tensors::read(dir.join(TENSORS))?)
}

/// A whole model beside the adapter, as the base has it: nothing but the embedding and the head is kept.
#[test]
fn the_bases_own_weights() -> Result<()> {
    let _serial = serial();
    let (batch, python) = expected(CASE)?;
    let dir = with_base(|_, t| Some(t.copy()))?;
    let mut peft = llama()?;
    let said = text(&peft.load("a", dir.path())?);
    ensure!(said.contains("the base's own weight") && said.contains("18 more"), "{said}");
    assert_close("logits", &logits(&peft, &["a"], &batch)?, &python, 1e-5)?;
    let out = tempfile::tempdir()?;
    peft.save("a", out.path())?;
    let kept = read(out.path())?;
    let beside: Vec<&String> = kept.keys().filter(|k| !k.contains("lora_")).collect();
    ensure!(
        beside == ["base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"],
        "{beside:?}"
    );
    Ok(())
}

/// Other values than the base's count where the adapter is active, and travel with it: PEFT would write them over the
/// base's for everybody.
#[test]
fn other_weights_than_the_bases() -> Result<()> {
    let _serial = serial();
    let (batch, python) = expected(CASE)?;
    let dir = with_base(|name, t| name.ends_with("layers.1.mlp.up_proj.weight").then(|| t * 1.5))?;
    let mut peft = llama()?;
    let before = logits(&peft, &[], &batch)?;
    let said = text(&peft.load("a", dir.path())?);
    ensure!(said.contains("up_proj") && said.contains("another value"), "{said}");
    peft.load("plain", case(CASE))?;
    let adapted = logits(&peft, &["a"], &batch)?;
    ensure!(tests::relative_error(&adapted, &python)? > 1e-2, "the weight is not in force");
    assert_bits("the base", &logits(&peft, &[], &batch)?, &before)?;
    assert_close("the other adapter", &logits(&peft, &["plain"], &batch)?, &python, 1e-5)?;

    // By hand: the base with that weight, and the plain adapter.
    let by_hand = peft.base().tensors().into_iter().map(|(name, t)| {
        let changed = name.ends_with("layers.1.mlp.up_proj.weight");
        (name, if changed { t * 1.5 } else { t.copy() })
    });
    let base = peft_core::Params::from_tensors("by hand", tch::Device::Cpu, by_hand.collect::<Vec<_>>())?;
    let mut other = peft.over(base)?;
    other.load("plain", case(CASE))?;
    assert_bits("by hand", &adapted, &logits(&other, &["plain"], &batch)?)?;

    ensure!(peft.report(&["a"])? == peft.report(&["plain"])?, "{}", peft.report(&["a"])?);
    assert_close("merged", &logits(&peft.merged(&["a"])?, &[], &batch)?, &adapted, 1e-5)?;
    let out = tempfile::tempdir()?;
    peft.save("a", out.path())?;
    let mut again = llama()?;
    again.load("a", out.path())?;
    assert_bits("from its file", &logits(&again, &["a"], &batch)?, &adapted)?;
    peft.to_lora("a", "lora", 64)?;
    assert_close("as LoRA", &logits(&peft, &["lora"], &batch)?, &adapted, 1e-5)?;
    refused("mixed", peft.view_rows(&[Some("a"), None]), &["up_proj"])?;
    refused("combined", peft.combine("x", &[("a", 1.0)], Combination::Cat), &["up_proj"])?;
    peft.copy("a", "copy")?;
    assert_bits("a copy", &logits(&peft, &["copy"], &batch)?, &adapted)
}
