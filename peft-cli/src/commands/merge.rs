//! `peft merge`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Folds an adapter into its model, and verifies what it has written
#[derive(Debug, Args)]
pub struct Merge {}

impl Merge {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft merge is not there yet")
    }
}
