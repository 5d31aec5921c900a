//! `peft convert`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Writes an adapter as another program reads it, or as a LoRA
#[derive(Debug, Args)]
pub struct Convert {}

impl Convert {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft convert is not there yet")
    }
}
