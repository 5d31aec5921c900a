//! Methods and models from outside the crate: every hook of `Method` does something, and what it says it does.

mod attention;
mod files;
mod input;
mod layers;
mod parts;
mod training;

use anyhow::Result;
use peft_core::models::TinyConfig;
use peft_core::{Batch, Model, Params, Pass, Peft};
use tch::{Device, Kind, Tensor};

const TINY: TinyConfig = TinyConfig { vocab: 40, hidden: 16, layers: 2, heads: 4, ffn: 24, classes: 3 };

fn tiny() -> Result<Peft> {
    Ok(Peft::new(TINY.init(Device::Cpu)?, TINY)?)
}

fn batch() -> Batch {
    Batch::dense(Tensor::randint(TINY.vocab, [3, 7], (Kind::Int64, Device::Cpu)))
}

fn classes() -> Tensor {
    Tensor::from_slice(&[0i64, 2, 1])
}

fn logits(peft: &Peft, active: &[&str], batch: &Batch) -> Result<Tensor> {
    Ok(peft.view(active)?.forward(batch, Pass::eval())?.detach())
}

/// The merged model's logits.
fn merged(peft: &Peft, active: &[&str], batch: &Batch) -> Result<Tensor> {
    logits(&peft.merged(active)?, &[], batch)
}

/// Overwrites every tensor with noise around its value.
fn shake(params: &Params) -> Result<()> {
    for (name, t) in params.tensors() {
        let t = t.detach();
        params.assign(&name, &(&t + t.randn_like() * 0.3))?;
    }
    Ok(())
}

fn get(params: &Params, name: &str) -> Tensor {
    params.tensors().remove(name).unwrap_or_default().detach()
}
