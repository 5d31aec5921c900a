//! `peft inspect`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Says what a model, an adapter or a checkpoint is made of
#[derive(Debug, Args)]
pub struct Inspect {}

impl Inspect {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft inspect is not there yet")
    }
}
