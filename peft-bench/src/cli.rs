//! The command line.

use crate::cases::{CASES, Case};
use anyhow::{Context, Result, bail};
use clap::Parser;
use peft_core::device::{DeviceChoice, Threads};
use std::collections::BTreeSet;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  peft-bench                                          all methods on the synthetic task, three seeds
  peft-bench --methods lora,full --seeds 0..8         two methods, eight seeds
  peft-bench --steps 20 --json runs/quick.jsonl       a quick look, with one JSON line a run
  peft-bench --jobs 2 --plots plots                   two runs at a time, and two pictures
  peft-bench --model models/all-MiniLM-L6-v2 --train data/debian_sections/train.jsonl \\
             --test data/debian_sections/test.jsonl   a real model on real text
  peft-bench --device cuda                            on the GPU";

/// Parameter-efficient fine-tuning methods on identical data: accuracy, time, memory, size
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Options {
    /// Methods to run, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    pub methods: Vec<String>,

    /// Seeds: a list (0,1,5) or a range (0..8)
    #[arg(long, default_value = "0..3")]
    pub seeds: String,

    /// Training steps a run [default: 600 on the synthetic task; all epochs on text]
    #[arg(long)]
    pub steps: Option<u64>,

    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,

    #[arg(long, default_value_t, help = Threads::HELP)]
    pub threads: Threads,

    /// Peak learning rate, for all methods [default: each method's own, see --list]
    #[arg(long)]
    pub lr: Option<f64>,

    /// Append one JSON line a run to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw accuracy against parameters, and the losses, as SVG and PNG files in this directory
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// Show the methods with their settings, and stop
    #[arg(long)]
    pub list: bool,

    /// Hub model directory (BERT family, with tokenizer.json): run on text instead of the synthetic task
    #[arg(long, value_name = "DIR", requires = "train", requires = "test")]
    pub model: Option<PathBuf>,

    /// Training text, one {"text": ..., "label": ...} a line
    #[arg(long, value_name = "FILE", requires = "model")]
    pub train: Option<PathBuf>,

    /// Test text
    #[arg(long, value_name = "FILE", requires = "model")]
    pub test: Option<PathBuf>,

    /// Passes over the training text
    #[arg(long, default_value_t = 3)]
    pub epochs: u64,

    /// Draw a fresh classification head even if the model has one
    #[arg(long, requires = "model")]
    pub new_head: bool,

    /// Rows a step [default: 64 on the synthetic task, 32 on text]
    #[arg(long)]
    pub batch: Option<usize>,

    /// Runs at a time; a step's time is its own with one alone
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
}

impl Options {
    /// The methods that were asked for.
    pub fn cases(&self) -> Result<Vec<&'static Case>> {
        if self.methods.is_empty() {
            return Ok(CASES.iter().collect());
        }
        self.methods.iter().map(|name| Case::find(name).context("--methods")).collect()
    }

    /// The seeds that were asked for.
    pub fn seeds(&self) -> Result<Vec<i64>> {
        let wrong = || format!("--seeds {}: expected a list like 0,1,5 or a range like 0..8", self.seeds);
        let number = |s: &str| s.trim().parse::<i64>().with_context(wrong);
        let seeds = match self.seeds.split_once("..") {
            Some((from, to)) => (number(from)?..number(to)?).collect(),
            None => self.seeds.split(',').map(number).collect::<Result<Vec<_>>>()?,
        };
        if seeds.is_empty() {
            bail!(wrong());
        }
        if seeds.iter().collect::<BTreeSet<_>>().len() < seeds.len() {
            bail!("--seeds {}: a seed is there twice", self.seeds);
        }
        Ok(seeds)
    }
}
