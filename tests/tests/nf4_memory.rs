//! What a base in 4 bits holds, in a process of its own: opening one, and a training step over one, form dense weights
//! one at a time.

use anyhow::{Result, ensure};
use peft_core::hub;
use peft_core::hub::{Head, Options};
use peft_core::io::{read_json, tensors, write_json};
use peft_core::methods::LoraConfig;
use peft_core::quant::Nf4Config;
use peft_core::train::next_token_loss;
use peft_core::{Batch, Model, Pass, Peft};
use peft_sys::memory::{install, live, peak, reset_peak};
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tests::golden;

const HIDDEN: i64 = 256;
const FFN: i64 = 1024;
const LAYERS: i64 = 6;
/// Of the largest linear layer, dense, in f32.
const LARGEST: usize = 4 * (HIDDEN * FFN) as usize;

/// The golden's Llama with wider and more layers.
fn write(dir: &Path) -> Result<()> {
    let mut json = read_json(golden("llama/base/config.json"))?;
    for (field, value) in [
        ("hidden_size", HIDDEN),
        ("intermediate_size", FFN),
        ("num_hidden_layers", LAYERS),
        ("head_dim", HIDDEN / 4),
        ("num_key_value_heads", 4),
    ] {
        json[field] = value.into();
    }
    write_json(dir.join("config.json"), &json)?;
    let golden = tensors::read(golden("llama/base/model.safetensors"))?;
    let wide = |name: &str, d: i64, i: usize| match (name, i) {
        _ if d == 96 => 96,
        (n, 0) if n.contains("gate") || n.contains("up_proj") => FFN,
        (n, 1) if n.contains("down") => FFN,
        _ => HIDDEN,
    };
    let mut all = std::collections::BTreeMap::new();
    for (name, t) in golden.iter().filter(|(name, _)| !name.contains("layers.1.")) {
        let shape: Vec<i64> = t.size().iter().enumerate().map(|(i, d)| wide(name, *d, i)).collect();
        let layers = if name.contains("layers.0.") { LAYERS } else { 1 };
        for layer in 0..layers {
            let w = Tensor::randn(shape.as_slice(), (Kind::Float, Device::Cpu)) * 0.05;
            all.insert(name.replace("layers.0.", &format!("layers.{layer}.")), w);
        }
    }
    Ok(tensors::write(dir.join("model.safetensors"), &all)?)
}

fn open(dir: &Path, quantise: Option<Nf4Config>) -> Result<(Peft, usize, usize)> {
    let before = live();
    reset_peak();
    let peft = hub::open(dir, Device::Cpu, Options { quantise, ..Head::Stored.into() })?.peft;
    Ok((peft, live() - before, peak() - before))
}

/// Most bytes beyond the model that a step's forward and backward pass hold.
fn step(peft: &mut Peft) -> Result<usize> {
    peft.add("a", LoraConfig { r: 2, ..LoraConfig::default() })?;
    let ids = Tensor::randint(96, [1, 8], (Kind::Int64, Device::Cpu));
    let before = live();
    reset_peak();
    let logits = peft.view(&["a"])?.forward(&Batch::dense(ids.shallow_clone()), Pass::train())?;
    next_token_loss(&logits, &ids)?.backward();
    Ok(peak() - before)
}

#[test]
fn dense_weights_live_one_at_a_time() -> Result<()> {
    install();
    tch::set_num_threads(1);
    let dir = tempfile::tempdir()?;
    write(dir.path())?;
    let how = Nf4Config { double_quant: true, ..Nf4Config::default() };
    let (mut dense, dense_holds, _) = open(dir.path(), None)?;
    let (mut packed, holds, opening) = open(dir.path(), Some(how))?;
    let linears: i64 = packed.base().nf4s().values().map(|w| w.numel()).sum();
    ensure!(linears == LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FFN), "{linears} parameters");
    let numel = linears as f64;
    let saved = (dense_holds - holds) as f64 / numel;
    ensure!(saved > 4.0 - 0.57, "{saved:.3} bytes a parameter are saved");
    ensure!(opening < holds + LARGEST + LARGEST / 4, "opening held {opening}, the model {holds}");

    let (over_dense, over_packed) = (step(&mut dense)?, step(&mut packed)?);
    ensure!(
        over_packed < over_dense + LARGEST + LARGEST / 4,
        "a step holds {over_packed} beyond the model, {over_dense} over dense weights"
    );
    Ok(())
}
