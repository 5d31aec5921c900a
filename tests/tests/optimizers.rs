//! LoRA+ and LoRA-FA against PEFT's (`tests/golden/llama/x_optim`), and what groups of parameters add to a trainer.

use anyhow::{Context, Result, ensure};
use peft_core::methods::{Common, InitLora, LoraConfig, TrainableTokensConfig};
use peft_core::seam::Numerics;
use peft_core::train::{
    Adam, AdamConfig, Decay, Group, LoraFa, LoraPlus, Optim, Product, Schedule, Trainer, next_token_loss,
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
    let plus = LoraPlus { adam: AdamConfig::default(), ..LoraPlus::new(16.0) };
    let groups = plus.groups(&peft, &["a"], lr)?;
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
        let peft = adapted(&["q_proj"])?.with_numerics(Numerics::Exact);
        let params = peft.params("a")?;
        for (key, t) in g.iter().filter_map(|(k, t)| Some((k.strip_prefix("init.")?, t))) {
            params.assign(&ours(key), t)?;
        }
        let (meta, default) = (meta()?, LoraFa::default());
        let fa = LoraFa { adam: AdamConfig { weight_decay: 0.1, ..default.adam }, product };
        let lr = meta["lorafa"]["lr"].as_f64().context("lr")?;
        let mut trainer = Trainer::new(&peft, &["a"], fa, lr, Schedule::Constant)?;
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
    let trainer = |name: &str, optim: Optim| Trainer::new(&peft, &[name], optim, 1e-3, Schedule::Constant);
    let fa = LoraFa::default();
    refused("no factors", trainer("a", fa.into()), &["LoRA-FA", "low-rank"])?;
    refused("unknown", trainer("b", fa.into()), &["`b`", "`a`"])?;
    for ratio in [0.0, -1.0, f64::NAN] {
        refused("ratio", trainer("a", LoraPlus::new(ratio).into()), &["LoRA+", "ratio", "positive"])?;
    }
    Ok(())
}

/// What LoRA-FA freezes, another trainer trains again, whichever is made first; and an adapter goes on being trained under
/// another name.
#[test]
fn no_order_of_trainers_matters() -> Result<()> {
    let _serial = serial();
    let mut peft = adapted(&["q_proj"])?;
    let a = |peft: &Peft, name: &str| -> Result<Vec<Tensor>> {
        let all = peft.params(name)?.tensors().into_iter();
        Ok(all.filter(|(n, _)| n.contains("lora_A")).map(|(_, t)| t.detach().copy()).collect())
    };
    let start = a(&peft, "a")?;
    let trainer = |peft: &Peft, optim: Optim| Trainer::new(peft, &["a"], optim, 1e-2, Schedule::Constant);
    for step in 0..2 {
        // B is zero at first, and A has no gradient then.
        trainer(&peft, LoraFa::default().into())?.step(&loss(&peft, step)?)?;
    }
    ensure!(a(&peft, "a")? == start && peft.trainable(&["a"])?.iter().all(|(n, _)| !n.contains("lora_A")));
    let mut second = trainer(&peft, AdamConfig::default().into())?;
    let loss = loss(&peft, 2)?;
    peft.rename("a", "b")?;
    second.step(&loss)?;
    ensure!(a(&peft, "b")?.iter().zip(&start).all(|(now, then)| now != then), "A is not trained");
    Ok(())
}

/// Tensors by the ends of their names: each group its rate, the rest that of the trainer.
#[test]
fn rates_are_those_of_endings() -> Result<()> {
    let _serial = serial();
    let mut peft = base()?;
    let init_lora_weights = InitLora::Flag(false); // B is not zero, so that A has a gradient
    peft.add("a", LoraConfig { targets: ["q_proj"].into(), init_lora_weights, ..LoraConfig::default() })?;
    let copies = |peft: &Peft| -> Result<BTreeMap<String, Tensor>> {
        let all = peft.trainable(&["a"])?.into_iter();
        Ok(all.map(|(n, t)| (n, t.detach().copy())).collect())
    };
    let before = copies(&peft)?;
    let rates = |ending: &str| Optim::Rates { adam: AdamConfig::adam(), rates: vec![(ending.into(), 25.0)] };
    let trainer = |optim| Trainer::new(&peft, &["a"], optim, 1e-3, Schedule::Constant);
    refused(
        "ending",
        trainer(rates(".lora_C.weight")),
        &["rates", "`.lora_C.weight`", "none of the", "lora_A"],
    )?;
    trainer(rates(".lora_B.weight"))?.step(&loss(&peft, 0)?)?;
    for (name, now) in copies(&peft)? {
        // The first step of Adam is the learning rate, wherever there is a gradient.
        let moved = f64::try_from((now - &before[&name]).abs().max())?;
        let rate = if name.ends_with(".lora_B.weight") { 25e-3 } else { 1e-3 };
        ensure!((moved / rate - 1.0).abs() < 1e-2, "{name}: {moved} for {rate}");
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
        let adam = AdamConfig { weight_decay: 0.1, ..AdamConfig::default() };
        let plus = LoraPlus { adam, ..LoraPlus::new(8.0) };
        Ok(Trainer::new(peft, &["a"], plus, 1e-2, Schedule::Cosine { warmup: 0, total: 20 })?)
    };
    let start = || -> Result<Peft> {
        tch::manual_seed(3);
        adapted(&["q_proj", "embed_tokens"])
    };
    let (straight, halves, single) = (start()?, start()?, start()?);
    let mut whole = trainer(&straight)?;
    let mut one = Trainer::new(
        &single,
        &["a"],
        AdamConfig::default(),
        1e-2,
        Schedule::Cosine { warmup: 0, total: 20 },
    )?;
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
        let mut adam = Adam::grouped(groups, AdamConfig { decay, ..AdamConfig::default() }, Numerics::Fast)?;
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
