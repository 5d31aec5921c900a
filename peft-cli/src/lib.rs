//! `peft`: fine-tuning from the command line, over `peft-core`.
//!
//! A command is a file of `commands`. Results go to stdout, as text or with `--json` as JSON; progress, notes, warnings and
//! errors go to stderr. How a command ended is its exit code ([`Outcome`](outcome::Outcome)).
#![forbid(unsafe_code)]

pub mod card;
pub mod commands;
pub mod common;
pub mod outcome;
pub mod output;
pub mod recipe;
pub mod source;
pub mod training;
pub mod watch;

use clap::Parser;
use output::Output;
use std::ffi::OsString;
use std::process::ExitCode;

/// Parameter-efficient fine-tuning of language models and text classifiers, without Python
#[derive(Debug, Parser)]
#[command(name = "peft", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: commands::Command,
    /// Print results as JSON, one value a line
    #[arg(long, global = true)]
    json: bool,
    /// No progress and no notes on stderr; warnings and errors stay
    #[arg(long, short, global = true)]
    quiet: bool,
}

/// The whole program, with the arguments of a command line, the program's own name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let output = Output { json: cli.json, quiet: cli.quiet };
    match cli.command.run(&output) {
        Ok(outcome) => outcome.into(),
        Err(e) => peft_core::program::exit(Err(e)),
    }
}
