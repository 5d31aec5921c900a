//! The options that every program has, and the one `main` behind them all.

use crate::{Page, Section, find};
use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser};
use peft_core::device::{DeviceChoice, Threads};
use peft_core::program::exit;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use tch::Device;

/// Options of a section.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Options {
    /// Seed of everything that is drawn
    #[arg(long)]
    pub seed: Option<i64>,

    /// Where to compute: cpu, cuda, cuda:N or auto; the lesson's bits belong to the cpu
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,

    /// CPU threads: a number, or auto: one, which the recorded bits are of, and small models fastest with
    #[arg(long, default_value_t)]
    pub threads: Threads,

    /// Write each figure to this directory, as SVG and as PNG
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

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

/// Runs the section of the program `name` as its command line says.
pub fn main(name: &str) -> ExitCode {
    exit(command(name).and_then(|(section, options)| run(section, &options)).map(|()| true))
}

fn command(name: &str) -> Result<(&'static Section, Options)> {
    let (document, section) = find(name).with_context(|| format!("no section has the name `{name}`"))?;
    let command = Options::command()
        .name(section.name)
        .about(format!("Lesson {}, {} {}", document.number, section.number, section.title))
        .after_help(section.about)
        .mut_arg("seed", |arg| {
            arg.help(format!("Seed of everything that is drawn [default: {}, the lesson's]", section.seed))
        });
    let options = Options::from_arg_matches(&command.get_matches()).unwrap_or_else(|e| e.exit());
    Ok((section, options))
}

fn run(section: &Section, options: &Options) -> Result<()> {
    let device = options.device.open()?;
    if let Some(dir) = &options.plots {
        peft_plot::make_directory(dir)?;
    }
    options.threads.set(0);
    let mut page = Page::new(io::stdout(), options.json, options.plots.clone());
    let seed = options.seed.unwrap_or(section.seed);
    (section.run)(Setting { seed, device }, &mut page)?;
    page.finish()
}
