//! `peft recommend`.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::Args;

/// Recommends a method for a model, a device and data
#[derive(Debug, Args)]
pub struct Recommend {}

impl Recommend {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        bail!("peft recommend is not there yet")
    }
}
