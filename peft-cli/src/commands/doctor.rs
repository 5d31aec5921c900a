//! `peft doctor`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Looks at libtorch, devices and threads, and says what is wrong
#[derive(Debug, Args)]
pub struct Doctor {}

impl Doctor {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft doctor is not there yet")
    }
}
