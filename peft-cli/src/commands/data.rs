//! `peft data`.

mod rows;
mod show;
mod summary;

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use clap::{Args, Subcommand};

/// Shows rows of data as the model sees them
#[derive(Debug, Args)]
pub struct Data {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Show(show::Show),
}

impl Data {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        match &self.what {
            What::Show(show) => show.run(output),
        }
    }
}
