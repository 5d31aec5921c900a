//! What training refuses before it begins, and labels that are none.

use anyhow::{Result, ensure};
use peft_core::methods::{LoraConfig, OftConfig};
use peft_core::models::TinyConfig;
use peft_core::seam::Numerics;
use peft_core::train::{
    Adam, AdamConfig, Group, LoraPlus, Schedule, Trainer, cross_entropy, next_token_loss,
};
use peft_core::{Batch, Error, Model, Pass, Peft};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tests::refused;

fn tuned() -> Result<Peft> {
    let config = TinyConfig::default();
    let mut peft = Peft::new(config.init(Device::Cpu)?, config)?;
    let targets = ["ff.0"].into();
    peft.add("a", LoraConfig { targets, ..LoraConfig::default() })?;
    Ok(peft)
}

fn config_error<T>(what: &str, result: peft_core::Result<T>, parts: &[&str]) -> Result<()> {
    let error = refused(what, result, parts)?;
    ensure!(matches!(error, Error::Config { .. }), "{error:?}");
    Ok(())
}

const NONE: [f64; 4] = [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

#[test]
fn rates_that_would_train_uphill_or_nowhere() -> Result<()> {
    let peft = tuned()?;
    let trainer = |config: AdamConfig, lr| Trainer::new(&peft, &["a"], config, lr, Schedule::Constant);
    let default = AdamConfig::default();
    for value in NONE {
        let said = value.to_string();
        config_error("lr", trainer(default, value), &["lr", &said, "0 or a positive"])?;
        config_error("beta1", trainer(AdamConfig { beta1: value, ..default }, 0.1), &["beta1", &said])?;
        config_error("beta2", trainer(AdamConfig { beta2: value, ..default }, 0.1), &["beta2", &said])?;
        config_error("eps", trainer(AdamConfig { eps: value, ..default }, 0.1), &["eps", &said])?;
        let decay = AdamConfig { weight_decay: value, ..default };
        config_error("decay", trainer(decay, 0.1), &["weight_decay", &said])?;
        for (rate, weight_decay, field) in [(value, 0.0, "rate"), (1.0, value, "weight_decay")] {
            let group = Group { params: peft.trainable(&["a"])?, rate, weight_decay };
            config_error(
                field,
                Adam::grouped(vec![group], default, Numerics::Fast),
                &["group", field, &said],
            )?;
        }
        let groups = |plus: LoraPlus| plus.groups(&peft, &["a"], 0.1);
        config_error("LoRA+", groups(LoraPlus::new(value)), &["LoRA+", "ratio", &said])?;
        let plus = LoraPlus { embedding_lr: value, ..LoraPlus::new(16.0) };
        config_error("LoRA+", groups(plus), &["LoRA+", "embedding_lr", &said])?;
        let plus = LoraPlus { adam: decay, ..LoraPlus::new(16.0) };
        config_error("LoRA+", groups(plus), &["LoRA+", "weight_decay", &said])?;
        let copied = |(name, t): (String, Tensor)| (name, t.detach().copy());
        let before: BTreeMap<_, _> = peft.params("a")?.tensors().into_iter().map(copied).collect();
        let mut adam = Adam::new(peft.trainable(&["a"])?, default, Numerics::Fast)?;
        config_error("a step", adam.step(value), &["lr", &said])?;
        ensure!(adam.steps() == 0, "a step was counted");
        for (name, tensor) in peft.params("a")?.tensors() {
            ensure!(tensor.equal(&before[&name]), "{name} has changed");
        }
    }
    for beta in [1.0, 1.5] {
        config_error("beta", trainer(AdamConfig { beta2: beta, ..default }, 0.1), &["beta2", "[0, 1)"])?;
    }
    for max in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let loss = peft.trainable(&["a"])?[0].1.sum(Kind::Float);
        let step = trainer(default, 0.1)?.clip(max).step(&loss);
        config_error("clip", step, &["max_grad_norm", &max.to_string()])?;
    }
    trainer(default, 0.0)?;
    Ok(())
}

#[test]
fn schedules_without_a_peak() -> Result<()> {
    let peft = tuned()?;
    for (schedule, parts) in [
        (Schedule::Linear { warmup: 30, total: 12 }, ["warmup", "30 steps of 12"]),
        (Schedule::Linear { warmup: 0, total: 0 }, ["total", "is 0"]),
        (Schedule::Cosine { warmup: 0, total: 0 }, ["total", "is 0"]),
    ] {
        let trainer = Trainer::new(&peft, &["a"], AdamConfig::default(), 0.1, schedule);
        config_error("schedule", trainer, &parts)?;
    }
    Ok(())
}

/// Labels that count nothing, or that the model does not have, are no divergence and no error of libtorch.
#[test]
fn labels_without_a_loss() -> Result<()> {
    let logits = Tensor::zeros([2, 3, 5], (Kind::Float, Device::Cpu));
    let loss = |labels: [i64; 6]| next_token_loss(&logits, &Tensor::from_slice(&labels).view([2, 3]));
    for (labels, parts) in [
        ([-100; 6], &["every label is -100"][..]),
        // The first label of a row is that of no prediction.
        ([1, -100, -100, 2, -100, -100], &["every label is -100"]),
        ([1, 2, 5, 1, -100, -100], &["label 5", "5 classes, 0 to 4"]),
        ([1, 2, -1, 1, -100, -100], &["label -1", "5 classes"]),
    ] {
        let error = refused("labels", loss(labels), parts)?;
        ensure!(matches!(error, Error::Input(_) | Error::Masked { .. }), "{error:?}");
    }
    let found = f64::try_from(loss([-100, -100, 4, -100, -100, -100])?)?;
    ensure!((found - 5f64.ln()).abs() < 1e-6, "{found}");

    let classes = Tensor::zeros([2, 5], (Kind::Float, Device::Cpu));
    for (labels, parts) in [
        (Tensor::from_slice(&[0i64, 5]), &["label 5", "0 to 4"][..]),
        (Tensor::from_slice(&[0i64, 1, 2]), &["3 classes for 2 rows"]),
        (Tensor::from_slice(&[0.0f32, 1.0]), &["Int64", "Float"]),
        (Tensor::from_slice(&[0i64, 1]).view([2, 1]), &["[2, 1]", "expected [batch, classes] and [batch]"]),
    ] {
        refused("classes", cross_entropy(&classes, &labels), parts)?;
    }
    Ok(())
}

/// Of parts, one that counts nothing says so, whoever finds it.
#[test]
fn parts_without_a_loss() -> Result<()> {
    let peft = tuned()?;
    let mut trainer = Trainer::new(&peft, &["a"], AdamConfig::default(), 0.1, Schedule::Constant)?;
    let weight = peft.trainable(&["a"])?[0].1.shallow_clone();
    let masked = cross_entropy(&weight, &Tensor::full([weight.size()[0]], -100, (Kind::Int64, Device::Cpu)));
    let parts = vec![Ok((weight.sum(Kind::Float), 1.0)), masked.map(|loss| (loss, 1.0))];
    refused("masked", trainer.step_accumulated(parts), &["every label is -100"])?;
    let parts: Vec<peft_core::Result<_>> = vec![Ok((weight.sum(Kind::Float), 0.0))];
    let error = refused("weight 0", trainer.step_accumulated(parts), &["every label is -100"])?;
    ensure!(matches!(error, Error::Masked { .. }), "{error:?}");
    ensure!(trainer.steps() == 0, "{} steps", trainer.steps());
    Ok(())
}

/// A file may ask for a series that does not end.
#[test]
fn a_series_without_an_end() -> Result<()> {
    let mut peft = tuned()?;
    let oft = |num_cayley_neumann_terms, use_cayley_neumann| OftConfig {
        num_cayley_neumann_terms,
        use_cayley_neumann,
        oft_block_size: 8,
        targets: ["ff.0"].into(),
        ..OftConfig::default()
    };
    for terms in [1001, 1 << 31, i64::MAX] {
        let parts =
            ["OFT", "num_cayley_neumann_terms", &terms.to_string(), "1000", "use_cayley_neumann: false"];
        config_error("terms", peft.add("oft", oft(terms, true)), &parts)?;
    }
    peft.add("oft", oft(1000, true))?;
    peft.add("exact", oft(i64::MAX, false))?;
    Ok(())
}

/// Nothing would be learned, or one tensor's state would be another's.
#[test]
fn losses_without_a_gradient_and_names_that_are_there_twice() -> Result<()> {
    let peft = tuned()?;
    let mut trainer = Trainer::new(&peft, &["a"], AdamConfig::default(), 0.1, Schedule::Constant)?;
    let batch = Batch::dense(Tensor::ones([2, 3], (Kind::Int64, Device::Cpu)));
    let other = peft.view(&[])?.forward(&batch, Pass::train())?.mean(Kind::Float);
    refused("another view", trainer.step(&other), &["the loss has no gradient", "other adapters"])?;
    ensure!(trainer.steps() == 0, "a step was counted");
    let twice = [peft.trainable(&["a"])?, peft.trainable(&["a"])?].map(|params| Group {
        params,
        rate: 1.0,
        weight_decay: 0.0,
    });
    let error = refused(
        "twice",
        Adam::grouped(twice.into(), AdamConfig::default(), Numerics::Fast),
        &["optimizer", "lora_A"],
    )?;
    ensure!(matches!(error, Error::Exists { .. }), "{error:?}");
    Ok(())
}
