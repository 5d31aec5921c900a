//! Several adapters at once: sums that can be written down.

use anyhow::{Result, ensure};
use peft_core::methods::{LoraConfig, PrefixTuningConfig, PromptTuningConfig};
use peft_core::target::Names;
use peft_core::{Params, Peft};
use std::collections::BTreeMap;
use tch::Tensor;
use tests::on_every_model;
use tests::subject::{Bert, Gpt2, Llama, Tiny};
use tests::subject::{Subject, logits, move_away, moved};
use tests::table::{Merge, Row};
use tests::{assert_bits, assert_close, serial};

/// The moved adapter `a` of the row, with a LoRA named `lora` (r 2, alpha 5) beside it.
fn with_lora<M: Subject>(row: &Row) -> Result<Peft> {
    let mut peft = moved::<M>(&row.config)?;
    peft.add("lora", lora::<M>())?;
    Ok(peft)
}

fn lora<M: Subject>() -> LoraConfig {
    let targets = Names::list(M::sizes().targets.iter().map(|t| t.name));
    LoraConfig { r: 2, lora_alpha: 5.0, targets: targets.into(), ..LoraConfig::default() }
}

/// Catches an adapter that loses or repeats the ones below it.
fn nothing_below<M: Subject>(row: &Row) -> Result<()> {
    let peft = with_lora::<M>(row)?;
    let alone = logits(&peft, &["a"])?;
    assert_bits("over a LoRA that is still the identity", &logits(&peft, &["lora", "a"])?, &alone)?;
    assert_bits("below it", &logits(&peft, &["a", "lora"])?, &alone)
}

#[test]
fn the_identity_below_or_above_changes_nothing() -> Result<()> {
    on_every_model!(nothing_below)
}

/// Catches a chain in the wrong order, and one adapter that reads the frozen weights where another has changed them.
fn merged_below<M: Subject>(row: &Row) -> Result<()> {
    let peft = with_lora::<M>(row)?;
    move_away(peft.params("lora")?, 31)?;
    let stacked = logits(&peft, &["lora", "a"])?;
    if row.merge == Merge::Folds {
        let both = peft.merged(&["lora", "a"])?;
        assert_close("both merged", &logits(&both, &[])?, &stacked, 1e-5)?;
    }
    // A copy of what was merged hides it: there is no such law for it, nor for a start taken from the base.
    if !row.hides && !row.from_base {
        let mut merged = peft.merged(&["lora"])?;
        merged.add_with("a", row.config.method(), peft.params("a")?.tensors())?;
        assert_close("over the merged LoRA", &logits(&merged, &["a"])?, &stacked, 1e-5)?;
    }
    if !row.commutes {
        return Ok(());
    }
    assert_close("the other order", &logits(&peft, &["a", "lora"])?, &stacked, 1e-5)
}

#[test]
fn an_adapter_over_lora_is_the_adapter_over_the_merged_model() -> Result<()> {
    on_every_model!(merged_below)
}

/// `W + s₁ B₁ A₁ + s₂ B₂ A₂`, by hand.
fn two_loras<M: Subject>() -> Result<()> {
    let mut peft = M::base()?;
    peft.add("x", lora::<M>())?;
    peft.add("y", LoraConfig { r: 4, lora_alpha: 6.0, use_rslora: true, ..lora::<M>() })?;
    move_away(peft.params("x")?, 41)?;
    move_away(peft.params("y")?, 42)?;
    let delta = |adapter: &Params, site: &str, scale: f64| -> Tensor {
        let tensors = adapter.tensors();
        let get = |leaf: &str| tensors[&format!("base_model.model.{site}.{leaf}.weight")].detach();
        get("lora_B").matmul(&get("lora_A")) * scale
    };
    let (x, y) = (peft.params("x")?, peft.params("y")?);
    let mut by_hand: BTreeMap<String, Tensor> = peft.base().tensors();
    let sites: Vec<String> = x.tensors().into_keys().filter_map(|k| site_of(&k)).collect();
    ensure!(sites.len() as i64 == M::sizes().layers * M::sizes().targets.len() as i64, "{sites:?}");
    for site in sites {
        let name = [".weight", "_weight"].map(|end| format!("{site}{end}"));
        let name = name.into_iter().find(|n| by_hand.contains_key(n)).unwrap_or_default();
        let base = &by_hand[&name];
        let more = delta(x, &site, 5.0 / 2.0) + delta(y, &site, 6.0 / 4f64.sqrt());
        let sum = base + if base.size() == more.size() { more } else { more.tr() };
        by_hand.insert(name, sum);
    }
    let base = Params::from_tensors("by hand", tch::Device::Cpu, by_hand)?;
    let by_hand = peft.over(base)?;
    assert_close("x and y", &logits(&peft, &["x", "y"])?, &logits(&by_hand, &[])?, 1e-5)
}

fn site_of(key: &str) -> Option<String> {
    Some(key.strip_prefix("base_model.model.")?.strip_suffix(".lora_A.weight")?.to_owned())
}

#[test]
fn two_loras_add_up() -> Result<()> {
    let _serial = serial();
    two_loras::<Tiny>()?;
    two_loras::<Bert>()?;
    two_loras::<Llama>()?;
    two_loras::<Gpt2>()
}

/// The named tensor of two adapters, one above the other.
fn joined(peft: &Peft, first: &str, second: &str) -> Result<[(String, Tensor); 1]> {
    let get = |name: &str| -> Result<Tensor> {
        Ok(peft.params(name)?.find("prompt_embeddings").map(|t| t.detach()).unwrap_or_default())
    };
    Ok([("prompt_embeddings".into(), Tensor::cat(&[get(first)?, get(second)?], 0))])
}

/// The first adapter named is the innermost: the later prompt stands before it.
fn prompts<M: Subject>() -> Result<()> {
    let mut peft = M::base()?;
    let prompt = |n| PromptTuningConfig { num_virtual_tokens: n, ..PromptTuningConfig::default() };
    peft.add("x", prompt(2))?;
    peft.add("y", prompt(3))?;
    let tensors = joined(&peft, "y", "x")?;
    peft.add_with("yx", prompt(5), tensors)?;
    assert_bits("x, then y", &logits(&peft, &["x", "y"])?, &logits(&peft, &["yx"])?)
}

/// Attention does not know the order of its keys; positions start after both.
fn prefixes<M: Subject>() -> Result<()> {
    let mut peft = M::base()?;
    let prefix = |n| PrefixTuningConfig { num_virtual_tokens: n, ..PrefixTuningConfig::default() };
    peft.add("x", prefix(2))?;
    peft.add("y", prefix(3))?;
    let tensors = joined(&peft, "x", "y")?;
    peft.add_with("xy", prefix(5), tensors)?;
    let one = logits(&peft, &["xy"])?;
    assert_close("x, then y", &logits(&peft, &["x", "y"])?, &one, 1e-5)?;
    assert_close("y, then x", &logits(&peft, &["y", "x"])?, &one, 1e-5)
}

#[test]
fn two_prompts_are_one_long_prompt() -> Result<()> {
    let _serial = serial();
    prompts::<Tiny>()?;
    prompts::<Bert>()?;
    prompts::<Llama>()?;
    prompts::<Gpt2>()?;
    prefixes::<Tiny>()?;
    prefixes::<Llama>()?;
    prefixes::<Gpt2>()?;
    prefixes::<Bert>()
}
