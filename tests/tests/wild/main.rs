//! Adapters, models and data as other programs and versions write them. What is read has Python's numbers, and what is
//! passed over is said; what would change the numbers is refused in words that help.

mod adapters;
mod beside;
mod refused;
mod resized;
mod wrapped;

use anyhow::{Context, Result};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::{Batch, Model, Pass, Peft, Warning};
use std::path::PathBuf;
use tch::{Device, Tensor};
use tests::{golden, golden_tensors};

/// The folder of a case.
pub fn case(name: &str) -> PathBuf {
    golden("cases").join(name)
}

pub fn open(family: &str) -> Result<Peft> {
    Ok(hub::open(golden(family).join("base"), Device::Cpu, Head::Stored)?.peft)
}

pub fn llama() -> Result<Peft> {
    open("llama")
}

/// A Llama whose head is the word embedding.
pub fn tied() -> Result<Peft> {
    open("tied")
}

/// What Python computed: the ids and the logits.
pub fn expected(name: &str) -> Result<(Batch, Tensor)> {
    let mut g = golden_tensors(&case(name))?;
    let ids = g.remove("input_ids").context("input_ids")?;
    Ok((Batch::dense(ids), g.remove("logits").context("logits")?))
}

pub fn logits(peft: &Peft, active: &[&str], batch: &Batch) -> Result<Tensor> {
    Ok(peft.view(active)?.forward(batch, Pass::eval())?.detach())
}

/// All that was said.
pub fn text(warnings: &[Warning]) -> String {
    warnings.iter().map(|w| format!("{w}\n")).collect()
}
