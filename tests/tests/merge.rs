//! Folding adapters into the base: exact, rounded once, and never broken in silence.

use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::methods::LoraConfig;
use peft_core::{MergeOptions, Peft};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tests::subject::Tiny;
use tests::subject::{Subject, logits, move_away};
use tests::{assert_bits, assert_close, golden, refused, serial};

fn lora(r: i64, alpha: f64, targets: &[&str]) -> LoraConfig {
    LoraConfig { r, lora_alpha: alpha, targets: targets.into(), ..LoraConfig::default() }
}

const KEY: &str = "layers.0.ff.0.weight";

fn with(mut peft: Peft) -> Result<Peft> {
    for (i, (name, r)) in [("a", 4), ("b", 3)].into_iter().enumerate() {
        peft.add(name, lora(r, 10.0, &["ff.0"]))?;
        move_away(peft.params(name)?, i as i64 + 3)?;
    }
    Ok(peft)
}

/// `W + Σ s B A` in f64.
fn exact(peft: &Peft, names: &[(&str, f64)]) -> Result<Tensor> {
    let mut w = peft.base().find(KEY).context("base")?.to_kind(Kind::Double);
    for (name, scale) in names {
        let part = |leaf: &str| -> Result<Tensor> {
            let key = format!("base_model.model.layers.0.ff.0.lora_{leaf}.weight");
            Ok(peft.params(name)?.find(&key).context(key)?.detach().to_kind(Kind::Double))
        };
        w += part("B")?.matmul(&part("A")?) * *scale;
    }
    Ok(w)
}

fn merged(peft: &Peft, names: &[&str], key: &str) -> Result<Tensor> {
    peft.merged(names)?.base().find(key).with_context(|| key.to_owned())
}

#[test]
fn f32_is_exact_and_bf16_rounds_once() -> Result<()> {
    let _serial = serial();
    let peft = with(Tiny::base()?)?;
    let both = [("a", 10.0 / 4.0), ("b", 10.0 / 3.0)];
    assert_close("one", &merged(&peft, &["a"], KEY)?, &exact(&peft, &both[..1])?, 1e-6)?;
    assert_close("two", &merged(&peft, &["a", "b"], KEY)?, &exact(&peft, &both)?, 1e-6)?;

    let half = with(Tiny::base()?.to_kind(Kind::BFloat16)?)?;
    for (names, parts) in [(&["a"] as &[&str], &both[..1]), (&["a", "b"], &both)] {
        let found = merged(&half, names, KEY)?;
        // The sum in f32 may fall on the other side of a tie than the exact one: that is all there may be.
        let once = exact(&half, parts)?.to_kind(Kind::BFloat16);
        let differ = f64::try_from(found.ne_tensor(&once).to_kind(Kind::Double).mean(Kind::Double))?;
        ensure!(
            found.kind() == Kind::BFloat16 && differ < 1e-3,
            "{names:?}: {differ} of the elements differ"
        );
    }
    Ok(())
}

#[test]
fn what_is_not_a_number_is_refused_with_site_and_adapter() -> Result<()> {
    let _serial = serial();
    let peft = with(Tiny::base()?)?;
    let key = "base_model.model.layers.0.ff.0.lora_B.weight";
    for bad in [f64::NAN, f64::INFINITY] {
        peft.params("b")?.assign(key, &Tensor::full_like(&peft.params("b")?.find(key).context("B")?, bad))?;
        refused("b alone", peft.merged(&["b"]), &["adapter `b`", "`layers.0.ff.0`", "NaN or infinite"])?;
        refused("b after a", peft.merged(&["a", "b"]), &["adapter `b`"])?;
        refused("b before a", peft.merged(&["b", "a"]), &["adapter `b`"])?;
        peft.merged(&["a"])?;
        let unsafe_merge = MergeOptions { safe: false, ..MergeOptions::default() };
        let found = peft.merged_with(&["b"], &unsafe_merge)?.peft.base().find(KEY).context("merged")?;
        ensure!(!bool::try_from(found.isfinite().all())?, "finite after all");
    }
    Ok(())
}

/// A number that f16 cannot hold becomes infinite only when it is rounded.
#[test]
fn an_overflow_by_rounding_is_seen() -> Result<()> {
    let _serial = serial();
    let peft = with(Tiny::base()?.to_kind(Kind::Half)?)?;
    let key = "base_model.model.layers.0.ff.0.lora_B.weight";
    let b = peft.params("a")?.find(key).context("B")?;
    peft.params("a")?.assign(key, &(b * 1e6))?;
    refused("overflow", peft.merged(&["a"]), &["adapter `a`", "`layers.0.ff.0`"])?;
    Ok(())
}

#[test]
fn a_base_that_is_broken_is_not_the_adapters_fault() -> Result<()> {
    let _serial = serial();
    let peft = with(Tiny::base()?)?;
    peft.base().assign(KEY, &Tensor::full_like(&peft.base().find(KEY).context("W")?, f64::NAN))?;
    refused("the base", peft.merged(&["a"]), &["the base itself", "`layers.0.ff.0`"])?;
    Ok(())
}

/// GPT-2's head is its word embedding. What changes one of them alone parts them.
#[test]
fn tied_heads_part_when_one_side_changes() -> Result<()> {
    let _serial = serial();
    let mut peft = hub::open(golden("gpt2/base"), Device::Cpu, hub::Head::Stored)?.peft;
    let words = "transformer.wte.weight";
    for (name, target) in [("inner", "c_attn"), ("head", "lm_head"), ("words", "wte")] {
        peft.add(name, lora(4, 10.0, &[target]))?;
        move_away(peft.params(name)?, 3)?;
        let merged = peft.merged(&[name])?;
        assert_close(name, &logits(&merged, &[])?, &logits(&peft, &[name])?, 1e-5)?;
        let tensors: BTreeMap<String, Tensor> = merged.base().tensors();
        ensure!(tensors.contains_key("lm_head.weight") == (name != "inner"), "{name}");
        if name != "words" {
            assert_bits("the embedding", &tensors[words], &peft.base().tensors()[words])?;
        }
    }
    Ok(())
}
