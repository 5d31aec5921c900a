//! `peft data`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Shows rows of data as the model sees them
#[derive(Debug, Args)]
pub struct Data {}

impl Data {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft data is not there yet")
    }
}
