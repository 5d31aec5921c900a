//! `peft generate`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Writes text with a causal model and its adapters
#[derive(Debug, Args)]
pub struct Generate {}

impl Generate {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft generate is not there yet")
    }
}
