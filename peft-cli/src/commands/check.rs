//! `peft check`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Looks at everything that can be known before the first step, and makes one step
#[derive(Debug, Args)]
pub struct Check {}

impl Check {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft check is not there yet")
    }
}
