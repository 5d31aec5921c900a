//! Bases in 4 bits: the numbers and files of bitsandbytes, every method over them, merging.

mod combining;
mod files;
mod merging;
mod methods;
mod numbers;

use anyhow::Result;
use peft_core::hub;
use peft_core::hub::{Head, Opened, Options};
use peft_core::quant::Nf4Config;
use peft_core::{Params, Peft};
use tch::{Device, Kind};
use tests::golden;

/// f32, relative to the largest value of the tensor.
const TOL: f64 = 1e-5;

const DOUBLE: Nf4Config = Nf4Config { double_quant: true, compute: Kind::Float, skip_modules: Vec::new() };

/// The base that transformers saved with bitsandbytes.
fn qlora() -> Result<Opened> {
    Ok(hub::open(golden("nf4/qlora_llama/base"), Device::Cpu, Head::Stored)?)
}

fn quantise(how: &Nf4Config) -> Options {
    Options { quantise: Some(how.clone()), ..Head::Stored.into() }
}

/// The same model with dense weights.
fn dense(peft: &Peft) -> Result<Peft> {
    let mut tensors = peft.base().tensors();
    for (name, w) in peft.base().nf4s() {
        let transposed =
            peft.outline().sites.iter().any(|s| s.transposed && format!("{}.weight", s.name) == name);
        let w = w.dequantise()?;
        tensors.insert(name, if transposed { w.tr().contiguous() } else { w });
    }
    Ok(peft.over(Params::from_tensors("dense", Device::Cpu, tensors)?)?)
}
