//! `peft combine`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Makes one adapter of several
#[derive(Debug, Args)]
pub struct Combine {}

impl Combine {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft combine is not there yet")
    }
}
