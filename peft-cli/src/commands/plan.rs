//! `peft plan`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Says what a training holds in memory, by part, from headers alone
#[derive(Debug, Args)]
pub struct Plan {}

impl Plan {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft plan is not there yet")
    }
}
