//! LoRA+ and LoRA-FA against PEFT's (`tests/golden/llama/x_optim`), and what groups of parameters add to a trainer.

use anyhow::{Context, Result, ensure};
use peft_core::methods::{Common, LoraConfig, TrainableTokensConfig};
use peft_core::train::{
    Adam, AdamConfig, Decay, Group, LoraFa, LoraPlus, Product, Schedule, Trainer, next_token_loss,
};
use peft_core::{Batch, Model, Pass, Peft};
use peft_core::{hub, io};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Device, Kind, Tensor};
use tests::{assert_bits, assert_close, golden, golden_tensors, refused, serial};

fn base() -> Result<Peft> {
    Ok(hub::open(golden("llama/base"), Device::Cpu, hub::Head::Stored)?.peft)
}

/// The golden's adapter.
fn adapted(targets: &[&str]) -> Result<Peft> {
    let mut peft = base()?;
    let config = LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        targets: targets.into(),
        common: Common { modules_to_save: Some(vec!["model.norm".into()]), ..Common::default() },
        ..LoraConfig::default()
    };
    peft.add("a", config)?;
    Ok(peft)
}

/// Our name of a parameter in PEFT's memory.
fn ours(theirs: &str) -> String {
    theirs.replace(".modules_to_save.default", "").replace(".default", "")
}

fn meta() -> Result<Value> {
    Ok(io::read_json(golden("llama/x_optim/meta.json"))?)
}

#[test]
fn lora_plus_groups_are_pefts() -> Result<()> {
    let _serial = serial();
    let (peft, lr) = (adapted(&["q_proj", "embed_tokens"])?, 1e-3);
    let plus = LoraPlus { weight_decay: 0.01, ..LoraPlus::new(16.0, lr) };
    let groups = plus.groups(&peft, &["a"])?;
    let meta = meta()?;
    let expected = meta["loraplus_groups"].as_array().context("no groups")?;
    ensure!(groups.len() == expected.len(), "{} groups", groups.len());
    for (group, expected) in groups.iter().zip(expected) {
        let rate = expected["lr"].as_f64().context("lr")?;
        ensure!((group.rate * lr / rate - 1.0).abs() < 1e-12, "{} · {lr}, expected {rate}", group.rate);
        ensure!(Some(group.weight_decay) == expected["weight_decay"].as_f64(), "{}", group.weight_decay);
        let theirs = expected["params"].as_array().context("params")?.iter().filter_map(Value::as_str);
        let theirs: BTreeSet<String> = theirs.map(ours).collect();
        let names: BTreeSet<String> = group.params.iter().map(|(n, _)| n.clone()).collect();
        ensure!(names == theirs, "{names:?}, expected {theirs:?}");
    }
    Ok(())
}

/// Three steps with the golden's gradients; the loss is chosen so that it has them.
#[test]
fn lora_fa_takes_pefts_steps() -> Result<()> {
    let _serial = serial();
    let g = golden_tensors(&golden("llama/x_optim"))?;
    for (product, tol) in [(Product::Peft, 1e-6), (Product::F32, 5e-2)] {
        let peft = adapted(&["q_proj"])?;
        let params = peft.params("a")?;
        for (key, t) in g.iter().filter_map(|(k, t)| Some((k.strip_prefix("init.")?, t))) {
            params.assign(&ours(key), t)?;
        }
        let lora_fa = LoraFa::new(&peft, &["a"], product)?;
        let (meta, config) = (meta()?, LoraFa::adam(0.1));
        let lr = meta["lorafa"]["lr"].as_f64().context("lr")?;
        let mut trainer =
            Trainer::for_adapters(&peft, &["a"], config.exact(), lr, Schedule::Constant)?.lora_fa(lora_fa);
        ensure!(peft.trainable(&["a"])?.iter().all(|(n, _)| !n.contains("lora_A")), "A is trained");
        for step in 1..=3 {
            let grads =
                g.iter().filter_map(|(k, t)| Some((k.strip_prefix(&format!("step{step}.grad."))?, t)));
            let grads: BTreeMap<String, &Tensor> = grads.map(|(k, t)| (ours(k), t)).collect();
            let trained = peft.trainable(&["a"])?;
            ensure!(trained.iter().map(|(n, _)| n).eq(grads.keys()), "{:?}", grads.keys());
            let terms = trained.iter().map(|(n, p)| (p * grads[n]).sum(Kind::Float));
            trainer.step(&terms.reduce(|a, b| a + b).context("no terms")?)?;
            for (name, p) in peft.trainable(&["a"])? {
                let theirs = g.iter().find(|(k, _)| {
                    k.strip_prefix(&format!("step{step}."))
                        .is_some_and(|k| !k.starts_with("grad.") && ours(k) == name)
                });
                let (_, expected) = theirs.with_context(|| name.clone())?;
                assert_close(&format!("{product:?}, step {step}, {name}"), &p.detach(), expected, tol)?;
            }
        }
    }
    Ok(())
}

#[test]
fn lora_fa_is_for_lora() -> Result<()> {
    let _serial = serial();
    let mut peft = base()?;
    peft.add("a", TrainableTokensConfig { token_indices: vec![1], ..Default::default() })?;
    refused("no factors", LoraFa::new(&peft, &["a"], Product::F32).map(drop), &["LoRA-FA", "low-rank"])?;
    refused("unknown", LoraFa::new(&peft, &["b"], Product::F32).map(drop), &["`b`", "`a`"])?;
    for ratio in [0.0, -1.0, f64::NAN] {
        let groups = LoraPlus::new(ratio, 1e-3).groups(&peft, &["a"]);
        refused("ratio", groups.map(drop), &["LoRA+", "ratio", "positive"])?;
    }
    Ok(())
}

fn loss(peft: &Peft, seed: i64) -> Result<Tensor> {
    tch::manual_seed(seed);
    let ids = Tensor::randint(96, [2, 7], (Kind::Int64, Device::Cpu));
    Ok(next_token_loss(&peft.view(&["a"])?.forward(&Batch::dense(ids.copy()), Pass::train())?, &ids)?)
}

/// Ten steps of LoRA+ are five, a saved state, and five more; and not those of one group.
#[test]
fn a_state_with_groups_resumes() -> Result<()> {
    let _serial = serial();
    let trainer = |peft: &Peft| -> Result<Trainer> {
        let groups = LoraPlus { weight_decay: 0.1, ..LoraPlus::new(8.0, 1e-2) }.groups(peft, &["a"])?;
        Ok(Trainer::grouped(groups, AdamConfig::default(), 1e-2, Schedule::Cosine { total: 20 })?)
    };
    let start = || -> Result<Peft> {
        tch::manual_seed(3);
        adapted(&["q_proj", "embed_tokens"])
    };
    let (straight, halves, single) = (start()?, start()?, start()?);
    let mut whole = trainer(&straight)?;
    let mut one =
        Trainer::for_adapters(&single, &["a"], AdamConfig::default(), 1e-2, Schedule::Cosine { total: 20 })?;
    let mut first = trainer(&halves)?;
    for step in 0..10 {
        whole.step(&loss(&straight, step)?)?;
        one.step(&loss(&single, step)?)?;
        if step == 5 {
            let state = first.optimizer().state()?;
            first = trainer(&halves)?;
            first.optimizer().load_state(&state)?;
        }
        first.step(&loss(&halves, step)?)?;
    }
    let (straight, halves, single) = (straight.params("a")?, halves.params("a")?, single.params("a")?);
    for (name, t) in straight.tensors() {
        assert_bits(&name, &halves.tensors()[&name].detach(), &t.detach())?;
        let same = single.tensors()[&name].equal(&t);
        ensure!(same == name.ends_with("base_layer.weight"), "{name}: groups change nothing, or too much");
    }
    Ok(())
}

/// Each group's rate and decay, on one number each.
#[test]
fn groups_have_rates_of_their_own() -> Result<()> {
    for decay in [Decay::Gradient, Decay::Before, Decay::After] {
        let p = |x: f64| Tensor::from_slice(&[x]).set_requires_grad(true);
        let (slow, fast) = (p(1.0), p(1.0));
        let group = |t: &Tensor, name: &str, rate, weight_decay| Group {
            params: vec![(name.to_owned(), t.shallow_clone())],
            rate,
            weight_decay,
        };
        let groups = vec![group(&slow, "slow", 0.5, 0.0), group(&fast, "fast", 4.0, 0.2)];
        let mut adam = Adam::grouped(groups, AdamConfig { decay, ..AdamConfig::default() })?;
        (&slow + &fast).sum(Kind::Double).backward();
        adam.step(0.1)?;
        // The first step of Adam is the learning rate.
        let expected = match decay {
            Decay::Gradient => 1.0 - 0.4,
            Decay::Before => (1.0 - 0.4 * 0.2) - 0.4,
            Decay::After => (1.0 - 0.4) * (1.0 - 0.4 * 0.2),
        };
        let found = (slow.double_value(&[0]), fast.double_value(&[0]));
        ensure!((found.0 - 0.95).abs() < 1e-6 && (found.1 - expected).abs() < 1e-6, "{decay:?}: {found:?}");
    }
    Ok(())
}
