//! `peft train`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Trains an adapter as a recipe says
#[derive(Debug, Args)]
pub struct Train {}

impl Train {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft train is not there yet")
    }
}
