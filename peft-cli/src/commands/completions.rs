//! `peft completions`.

use crate::Cli;
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::{Write, stdout};

/// Prints a script that completes the command in a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  peft completions bash > ~/.local/share/bash-completion/completions/peft")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(&self, _output: &Output) -> Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "peft", &mut script);
        stdout().write_all(&script)?;
        Ok(Outcome::Done)
    }
}
