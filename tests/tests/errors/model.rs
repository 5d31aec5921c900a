//! Bases that are no model of their configuration, and inputs that do not fit.

use crate::{TINY, bert, dense, ids, tiny};
use anyhow::{Result, ensure};
use peft_core::methods::{LoraConfig, PrefixTuningConfig, PromptTuningConfig};
use peft_core::models::TinyConfig;
use peft_core::seam::Numerics;
use peft_core::train::{Adam, AdamConfig, Schedule, Trainer};
use peft_core::{Batch, Error, Model, Params, Pass, Peft};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tests::{refused, serial};

/// Tiny's parameters, changed.
fn base(edit: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Result<Params> {
    let mut tensors = TINY.init(Device::Cpu)?.tensors();
    edit(&mut tensors);
    Ok(Params::from_tensors("my base", Device::Cpu, tensors)?)
}

#[test]
fn a_base_of_another_shape() -> Result<()> {
    let _serial = serial();
    let wider = TinyConfig { ffn: 16, ..TINY };
    let parts = ["the tiny model", "`layers.0.ff.0.weight`", "[12, 8]", "[16, 8]"];
    let error = refused("ffn 16", Peft::new(TINY.init(Device::Cpu)?, wider), &parts)?;
    ensure!(matches!(error, Error::Shape { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_base_that_lacks_a_tensor() -> Result<()> {
    let _serial = serial();
    let base = base(|all| {
        if let Some(t) = all.remove("layers.1.n2.bias") {
            all.insert("layers.1.n2.bais".into(), t);
        }
    })?;
    let parts = ["my base", "`layers.1.n2.bias`", "[8]", "`layers.1.n2.bais`"];
    let error = refused("without a bias", Peft::new(base, TINY), &parts)?;
    ensure!(matches!(error, Error::Missing { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_base_with_a_tensor_too_many() -> Result<()> {
    let _serial = serial();
    let more = base(|all| {
        drop(all.insert("layers.2.n1.weight".into(), Tensor::ones([8], (Kind::Float, Device::Cpu))))
    })?;
    let error = refused("one more", Peft::new(more, TINY), &["my base", "`layers.2.n1.weight`"])?;
    ensure!(matches!(error, Error::Unread { .. }), "{error:?}");
    // Fewer layers than the file has: all of the others are counted.
    let fewer = TinyConfig { layers: 1, ..TINY };
    refused("fewer layers", Peft::new(base(|_| ())?, fewer), &["`layers.1.", "and 7 more"])?;
    Ok(())
}

#[test]
fn a_token_outside_the_vocabulary_of_bert() -> Result<()> {
    for id in [96, -1] {
        let parts = [format!("token id {id}"), "96".to_owned()];
        let forward = bert()?.view(&[])?.forward(&dense(&[[1, 2, id]]), Pass::eval());
        let error = refused("forward", forward, &parts.each_ref().map(String::as_str))?;
        ensure!(matches!(error, Error::Input(_)), "{error:?}");
    }
    drop(bert()?.view(&[])?.forward(&dense(&[[0, 1, 95]]), Pass::eval())?);
    Ok(())
}

#[test]
fn a_token_outside_the_vocabulary_of_tiny() -> Result<()> {
    let _serial = serial();
    for id in [20, -1] {
        let parts = [format!("token id {id}"), "20".to_owned()];
        let forward = tiny()?.view(&[])?.forward(&dense(&[[1, 2, id]]), Pass::eval());
        refused("forward", forward, &parts.each_ref().map(String::as_str))?;
    }
    Ok(())
}

#[test]
fn ids_are_a_matrix() -> Result<()> {
    let _serial = serial();
    let flat = Batch::dense(Tensor::from_slice(&[1i64, 2, 3]));
    refused("bert", bert()?.view(&[])?.forward(&flat, Pass::eval()), &["[3]", "[batch, length]"])?;
    refused("tiny", tiny()?.view(&[])?.forward(&flat, Pass::eval()), &["[3]", "[batch, length]"])?;
    Ok(())
}

#[test]
fn a_text_longer_than_the_positions() -> Result<()> {
    let _serial = serial();
    let mut peft = bert()?;
    let forward = |peft: &Peft, active: &[&str], length| -> Result<peft_core::Result<Tensor>> {
        Ok(peft.view(active)?.forward(&Batch::dense(ids(96, [2, length])), Pass::eval()))
    };
    drop(forward(&peft, &[], 64)??);
    let error = refused("65 tokens", forward(&peft, &[], 65)?, &["65 tokens", "64 positions"])?;
    ensure!(matches!(error, Error::Input(_)), "{error:?}");

    // Virtual tokens take positions as well: as rows of the input, or as an offset.
    peft.add("prompt", PromptTuningConfig { num_virtual_tokens: 10, ..PromptTuningConfig::default() })?;
    peft.add("prefix", PrefixTuningConfig { num_virtual_tokens: 10, ..PrefixTuningConfig::default() })?;
    drop(forward(&peft, &["prompt"], 54)??);
    refused("with a prompt", forward(&peft, &["prompt"], 55)?, &["65 tokens", "64 positions"])?;
    drop(forward(&peft, &["prefix"], 54)??);
    refused(
        "with a prefix",
        forward(&peft, &["prefix"], 55)?,
        &["55 tokens", "position 10", "64 positions"],
    )?;
    Ok(())
}

#[test]
fn a_mask_of_another_shape() -> Result<()> {
    let _serial = serial();
    let ones = |shape: [i64; 2]| Tensor::ones(shape, (Kind::Int64, Device::Cpu));
    for shape in [[2, 4], [1, 5], [5, 2]] {
        let batch = Batch::masked(ids(96, [2, 5]), ones(shape));
        let found = format!("{shape:?}");
        refused("forward", bert()?.view(&[])?.forward(&batch, Pass::eval()), &["mask", &found, "[2, 5]"])?;
    }
    Ok(())
}

#[test]
fn tiny_takes_no_mask() -> Result<()> {
    let _serial = serial();
    let batch = Batch::masked(ids(20, [2, 5]), Tensor::ones([2, 5], (Kind::Int64, Device::Cpu)));
    refused("forward", tiny()?.view(&[])?.forward(&batch, Pass::eval()), &["tiny", "mask"])?;
    Ok(())
}

/// A row that is nothing but padding has no logits; they must not be NaN without a word.
#[test]
fn a_row_of_padding_is_refused_or_finite() -> Result<()> {
    let _serial = serial();
    let mask = Tensor::from_slice2(&[[1i64, 1, 0], [0, 0, 0]]);
    let batch = Batch::masked(ids(96, [2, 3]), mask);
    if let Ok(y) = bert()?.view(&[])?.forward(&batch, Pass::eval()) {
        ensure!(bool::try_from(y.isfinite().all())?, "logits {:?}", Vec::<Vec<f32>>::try_from(&y)?);
    }
    Ok(())
}

#[test]
fn nothing_to_train() -> Result<()> {
    let none = Adam::new(vec![], AdamConfig::default(), Numerics::Fast);
    refused("no parameters", none, &["nothing to train"])?;
    Ok(())
}

/// A loss that is no number leaves the parameters as they are.
#[test]
fn a_loss_that_is_not_a_number() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    peft.add("a", LoraConfig { targets: ["ff.0"].into(), ..LoraConfig::default() })?;
    let mut trainer = Trainer::new(&peft, &["a"], AdamConfig::default(), 0.1, Schedule::Constant)?;
    let copies = || -> Result<Vec<Tensor>> {
        Ok(peft.params("a")?.tensors().values().map(|t| t.detach().copy()).collect())
    };
    let before = copies()?;
    for value in [f64::NAN, f64::INFINITY] {
        let loss = peft.view(&["a"])?.forward(&dense(&[[1, 2, 3]]), Pass::train())?.sum(Kind::Float) * value;
        let error = refused("step", trainer.step(&loss), &["the loss", "step 1", "diverged"])?;
        ensure!(matches!(error, Error::NonFinite { step: 1, .. }), "{error:?}");
    }
    ensure!(copies()?.iter().zip(&before).all(|(a, b)| a.equal(b)), "the parameters were changed");
    Ok(())
}

/// Every error in the chain is one line, and says what the one above it has not said: `anyhow` prints them all.
#[test]
fn the_chain_of_a_libtorch_error_does_not_repeat_itself() -> Result<()> {
    let wrong = Batch::dense(Tensor::ones([2, 3], (Kind::Float, Device::Cpu)));
    let error = refused(
        "ids that are floats",
        bert()?.view(&[])?.forward(&wrong, Pass::eval()),
        &["word_embeddings"],
    )?;
    let mut source = std::error::Error::source(&error);
    while let Some(e) = source {
        ensure!(
            e.to_string().lines().count() == 1,
            "a source of `{error}` has {} lines",
            e.to_string().lines().count()
        );
        ensure!(!error.to_string().contains(&e.to_string()), "`{e}` is said twice");
        source = e.source();
    }
    Ok(())
}
