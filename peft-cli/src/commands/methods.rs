//! `peft methods`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Lists the methods, and when to use which
#[derive(Debug, Args)]
pub struct Methods {}

impl Methods {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft methods is not there yet")
    }
}
