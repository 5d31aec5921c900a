//! The options that every binary has, and the one `main` behind them all.

use crate::Page;
use clap::Parser;
use peft_core::DeviceChoice;
use std::io::{self, ErrorKind, Stdout};
use std::process::ExitCode;
use tch::Device;

/// Options of a section.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Options {
    /// Seed of everything that is drawn; the lesson's numbers belong to its own seed, 0
    #[arg(long, default_value_t = 0)]
    pub seed: i64,

    /// Where to compute: cpu, cuda, cuda:N or auto; the lesson's bits belong to the cpu
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,

    /// Print one JSON object with all numbers instead of text
    #[arg(long)]
    pub json: bool,
}

/// What a section gets: the seed, and the device that is open.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub seed: i64,
    pub device: Device,
}

impl Default for Setting {
    fn default() -> Self {
        Self { seed: 0, device: Device::Cpu }
    }
}

/// A section of a lesson.
pub type Section = fn(Setting, &mut Page<Stdout>) -> anyhow::Result<()>;

/// Parses the command line and runs `section`; `about` is the first line of `--help`.
pub fn main(about: &'static str, section: Section) -> ExitCode {
    let command = <Options as clap::CommandFactory>::command().about(about);
    let options = <Options as clap::FromArgMatches>::from_arg_matches(&command.get_matches());
    match run(&options.unwrap_or_else(|e| e.exit()), section) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough.
        Err(e) if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, section: Section) -> anyhow::Result<()> {
    let device = options.device.open()?;
    pin_threads();
    let mut page = Page::new(io::stdout(), options.json);
    section(Setting { seed: options.seed, device }, &mut page)?;
    Ok(page.finish()?)
}

/// One thread: the models are so small that a second one spins more than it helps, and sums have the recorded bits.
pub fn pin_threads() {
    tch::set_num_threads(1);
}
