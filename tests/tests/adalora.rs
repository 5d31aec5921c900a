//! AdaLoRA's allocator: against Python's on given numbers, and from training to a pruned file.

use anyhow::{Context, Result, ensure};
use peft_core::io::tensors;
use peft_core::methods::AdaLoraConfig;
use peft_core::train::{AdamConfig, Schedule, Trainer};
use peft_core::{Params, Peft};
use peft_core::{hub, io};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tests::subject::Tiny;
use tests::subject::{Subject, logits, loss};
use tests::{assert_bits, assert_close, golden, golden_tensors, refused, serial};

/// Sets the parameters and gradients of an adapter.
fn set(params: &Params, values: &dyn Fn(&str) -> Result<(Tensor, Tensor)>) -> Result<()> {
    for (name, mut p) in params.trainable() {
        let (value, grad) = values(&name)?;
        params.assign(&name, &value)?;
        p.zero_grad();
        (&p * grad).sum(Kind::Float).backward();
    }
    Ok(())
}

/// The `rank_pattern` that the adapter's file would have.
fn rank_pattern(peft: &Peft) -> Result<Value> {
    let config = peft.adapter_config("a")?.context("no file form")?;
    Ok(config["rank_pattern"].clone())
}

/// Eight steps on random values and gradients: budget, mask and masked values are Python's to the last bit.
#[test]
fn the_allocator_is_pythons() -> Result<()> {
    let _serial = serial();
    let dir = golden("llama/x_adalora_alloc");
    let (g, meta) = (golden_tensors(&dir)?, io::read_json(dir.join("meta.json"))?);
    let mut peft = hub::open(golden("llama/base"), Device::Cpu, hub::Head::Stored)?.peft;
    let config = AdaLoraConfig {
        init_r: 4,
        target_r: 2,
        tinit: 1,
        tfinal: 2,
        total_step: Some(8),
        delta_t: 2,
        targets: ["q_proj"].into(),
        ..AdaLoraConfig::default()
    };
    peft.add("a", config.clone())?;
    let sites = [0, 1].map(|i| format!("model.layers.{i}.self_attn.q_proj"));
    let mut masks = 0;
    for step in 1..=8u64 {
        set(peft.params("a")?, &|name| {
            let name = name.strip_prefix("base_model.model.").context("prefix")?;
            Ok((g[&format!("step{step}.{name}")].copy(), g[&format!("step{step}.grad.{name}")].copy()))
        })?;
        peft.after_step(&["a"], step)?;
        let expected = &meta["steps"][step as usize - 1];
        let (budget, due) = config.budget(step, sites.len());
        ensure!(budget == expected["budget"] && due == expected["mask_step"], "step {step}: {budget} {due}");
        let pattern = rank_pattern(&peft)?;
        for site in &sites {
            let name = format!("{site}.lora_E");
            let e = peft.params("a")?.tensors()[&format!("base_model.model.{name}")].detach();
            assert_bits(&format!("step {step}: {name}"), &e, &g[&format!("step{step}.after.{name}")])?;
            let Some(mask) = g.get(&format!("step{step}.mask.{name}")) else {
                ensure!(pattern.is_null(), "step {step}: {pattern}");
                continue;
            };
            let kept: Vec<bool> = serde_json::from_value(pattern[&name].clone())?;
            ensure!(
                Vec::<bool>::try_from(mask.to_kind(Kind::Bool))? == kept,
                "step {step}: {name}: {kept:?}"
            );
            masks += 1;
        }
    }
    ensure!(masks == 14, "{masks} masks compared");
    Ok(())
}

fn config(init_r: i64, target_r: i64) -> AdaLoraConfig {
    AdaLoraConfig {
        init_r,
        target_r,
        tinit: 1,
        tfinal: 2,
        total_step: Some(6),
        targets: ["in_proj", "ff.2"].into(),
        ..AdaLoraConfig::default()
    }
}

/// A trained adapter `a`.
fn trained(config: AdaLoraConfig, steps: usize) -> Result<Peft> {
    let mut peft = Tiny::base()?;
    peft.add("a", config)?;
    train(&peft, steps)?;
    Ok(peft)
}

fn train(peft: &Peft, steps: usize) -> Result<()> {
    let adam = AdamConfig::default();
    let mut trainer = Trainer::new(peft, &["a"], adam, 1e-2, Schedule::Constant)?;
    for _ in 0..steps {
        trainer.step(&loss(peft, &["a"])?)?;
    }
    Ok(())
}

/// All singular values of `a`.
fn values(peft: &Peft) -> Result<Vec<f64>> {
    let tensors = peft.params("a")?.tensors().into_iter().filter(|(name, _)| name.ends_with("lora_E"));
    let values: Vec<Tensor> = tensors.map(|(_, e)| e.detach().view([-1]).to_kind(Kind::Double)).collect();
    Ok(Vec::try_from(Tensor::cat(&values, 0))?)
}

/// The ranks of all layers, in the order of their names.
fn ranks(tensors: &BTreeMap<String, Tensor>) -> Vec<i64> {
    tensors.iter().filter(|(name, _)| name.ends_with("lora_E")).map(|(_, e)| e.size()[0]).collect()
}

/// The pruned file computes what the masked adapter does, has the budget's ranks, and is written again as it is.
#[test]
fn a_trained_adapter_is_pruned_in_its_file() -> Result<()> {
    let _serial = serial();
    let (dir, again) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut peft = trained(config(4, 2), 6)?;
    let kept: usize = values(&peft)?.iter().filter(|v| **v != 0.0).count();
    ensure!(kept == 8, "{kept} singular values are left");
    peft.save("a", dir.path())?;
    let file = tensors::read(dir.path().join("adapter_model.safetensors"))?;
    let found = ranks(&file);
    ensure!(found.iter().sum::<i64>() == 8 && found.iter().any(|r| *r != 2), "ranks {found:?}");
    peft.load("b", dir.path())?;
    assert_close("loaded", &logits(&peft, &["b"])?, &logits(&peft, &["a"])?, 1e-6)?;
    // With labels, too: the penalty and its gradient.
    let total = loss(&peft, &["b"])? + peft.penalty(&["b"])?.context("no penalty")?;
    total.backward();
    peft.after_step(&["b"], 7)?;
    peft.save("b", again.path())?;
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(name));
        ensure!(read(&dir)? == read(&again)?, "{name} has other bytes");
    }
    Ok(())
}

/// Ranks of 0, in all layers and in some: files of tensors without numbers.
#[test]
fn a_layer_may_lose_all_its_ranks() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    let mut peft = trained(config(3, 0), 6)?;
    peft.save("a", dir.path())?;
    let file = tensors::read(dir.path().join("adapter_model.safetensors"))?;
    ensure!(ranks(&file) == [0, 0, 0, 0], "ranks {:?}", ranks(&file));
    peft.load("b", dir.path())?;
    assert_bits("logits", &logits(&peft, &["b"])?, &logits(&peft, &[])?)?;
    assert_bits("merged", &logits(&peft.merged(&["b"])?, &[])?, &logits(&peft, &[])?)?;
    let total = loss(&peft, &["b"])? + peft.penalty(&["b"])?.context("no penalty")?;
    ensure!(f64::try_from(&total)?.is_finite(), "{total}");
    total.backward();
    Ok(())
}

/// With `init_r == target_r` there is nothing to prune, which is fine.
#[test]
fn a_budget_that_never_shrinks() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    let mut peft = trained(config(3, 3), 6)?;
    peft.save("a", dir.path())?;
    let file = tensors::read(dir.path().join("adapter_model.safetensors"))?;
    ensure!(ranks(&file) == [3, 3, 3, 3], "ranks {:?}", ranks(&file));
    peft.load("b", dir.path())?;
    assert_bits("loaded", &logits(&peft, &["b"])?, &logits(&peft, &["a"])?)
}

/// What the allocator lacks it says, before anything is pruned by nothing.
#[test]
fn a_step_that_has_nothing_to_prune_by_is_refused() -> Result<()> {
    let _serial = serial();
    let peft = trained(config(4, 2), 0)?;
    refused("no gradient", peft.after_step(&["a"], 1), &["adapter `a`", "lora_A", "no gradient"])?;
    refused("no average", peft.after_step(&["a"], 4), &["adapter `a`", "no step before"])?;
    refused("after the last", peft.after_step(&["a"], 5), &["step 5", "last pruning"])?;
    Ok(())
}

/// A loaded adapter goes on training with the ranks it has.
#[test]
fn a_pruned_adapter_keeps_its_ranks() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    trained(config(4, 2), 6)?.save("a", dir.path())?;
    let mut peft = Tiny::base()?;
    peft.load("a", dir.path())?;
    let before = ranks(&peft.params("a")?.tensors());
    train(&peft, 6)?;
    ensure!(ranks(&peft.method("a")?.export(peft.params("a")?)?) == before, "other ranks");
    ensure!(!values(&peft)?.contains(&0.0), "a value was pruned");
    Ok(())
}
