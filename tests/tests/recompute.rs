//! Layers that are computed again for the gradients, instead of what is within them being kept.

use anyhow::{Context, Result, ensure};
use peft_core::device::{count_memory, peak_memory, reset_peak_memory};
use peft_core::methods::LoraConfig;
use peft_core::models::TinyConfig;
use peft_core::train::{cross_entropy, next_token_loss};
use peft_core::{Batch, Model, Pass, Peft};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use tch::{Device, Kind, Tensor};
use tests::subject::{Subject, moved};
use tests::table::Row;
use tests::{assert_bits, on_every_model};

/// Loss and gradients of one training step, and what is drawn next.
fn step<M: Subject>(peft: &Peft, layers: Option<usize>) -> Result<BTreeMap<String, Tensor>> {
    let (batch, labels) = M::batch()?;
    tch::manual_seed(11);
    for (_, mut p) in peft.trainable(&["a"])? {
        p.zero_grad();
    }
    let pass = Pass { recompute: layers.and_then(NonZeroUsize::new), ..Pass::train() };
    let output = peft.view(&["a"])?.forward(&batch, pass)?;
    let loss =
        if M::sizes().causal { next_token_loss(&output, &labels)? } else { cross_entropy(&output, &labels)? };
    loss.backward();
    let mut all: BTreeMap<_, _> =
        peft.trainable(&["a"])?.into_iter().map(|(name, p)| (name, p.grad().copy())).collect();
    all.insert("the loss".into(), loss.detach());
    all.insert("the next random number".into(), Tensor::rand([1], (Kind::Float, Device::Cpu)));
    Ok(all)
}

/// Catches dropout that is drawn anew, a mask or a position that is lost, a parameter outside of the layers that is forgotten.
fn same<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let expected = step::<M>(&peft, None)?;
    for layers in [1, 2] {
        let found = step::<M>(&peft, Some(layers))?;
        expected
            .iter()
            .try_for_each(|(name, t)| assert_bits(&format!("{layers} layers: {name}"), &found[name], t))?;
    }
    Ok(())
}

#[test]
fn gradients_are_the_same_to_the_bit() -> Result<()> {
    on_every_model!(same)
}

/// Of twelve layers, three at a time hold less than all of them do.
#[test]
fn less_is_held() -> Result<()> {
    let _serial = tests::serial();
    count_memory();
    let config = TinyConfig { vocab: 50, hidden: 64, layers: 12, heads: 4, ffn: 256, classes: 3 };
    let mut peft = Peft::new(config.init(Device::Cpu)?, config)?;
    peft.add("a", LoraConfig::new(4).targets(["ff.0", "out_proj"]))?;
    let view = peft.view(&["a"])?;
    let held = |recompute| -> Result<i64> {
        let batch = Batch::dense(Tensor::f_randint(50, [16, 64], (Kind::Int64, Device::Cpu))?);
        let classes = Tensor::f_randint(3, [16], (Kind::Int64, Device::Cpu))?;
        reset_peak_memory(Device::Cpu)?;
        let before = peak_memory(Device::Cpu)?;
        let output = view.forward(&batch, Pass { recompute, ..Pass::train() })?;
        cross_entropy(&output, &classes)?.f_backward()?;
        Ok(peak_memory(Device::Cpu)? - before)
    };
    let three = NonZeroUsize::new(3).context("three")?;
    held(None)?; // the gradients are made
    let (plain, again) = (held(None)?, held(Some(three))?);
    ensure!(again * 2 < plain, "{again} bytes of {plain}");
    Ok(())
}
