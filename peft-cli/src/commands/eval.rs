//! `peft eval`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Measures loss and accuracy of a model with adapters on data
#[derive(Debug, Args)]
pub struct Eval {}

impl Eval {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft eval is not there yet")
    }
}
