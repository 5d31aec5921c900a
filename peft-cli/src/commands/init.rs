//! `peft init`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Writes a commented recipe
#[derive(Debug, Args)]
pub struct Init {}

impl Init {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft init is not there yet")
    }
}
