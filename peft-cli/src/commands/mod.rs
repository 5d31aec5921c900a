//! One file a command: its options, and what it does.

mod check;
mod combine;
mod completions;
mod convert;
mod data;
mod doctor;
mod eval;
mod fetch;
mod generate;
mod init;
mod inspect;
mod merge;
mod methods;
mod plan;
mod recommend;
mod train;

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use clap::Subcommand;

/// What `peft` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    Train(train::Train),
    Check(check::Check),
    Plan(plan::Plan),
    Data(data::Data),
    Eval(eval::Eval),
    Fetch(fetch::Fetch),
    Generate(generate::Generate),
    Inspect(inspect::Inspect),
    Merge(merge::Merge),
    Convert(convert::Convert),
    Combine(combine::Combine),
    Methods(methods::Methods),
    Recommend(recommend::Recommend),
    Doctor(doctor::Doctor),
    Init(init::Init),
    Completions(completions::Completions),
}

impl Command {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        match self {
            Self::Train(c) => c.run(output),
            Self::Check(c) => c.run(output),
            Self::Plan(c) => c.run(output),
            Self::Data(c) => c.run(output),
            Self::Eval(c) => c.run(output),
            Self::Fetch(c) => c.run(output),
            Self::Generate(c) => c.run(output),
            Self::Inspect(c) => c.run(output),
            Self::Merge(c) => c.run(output),
            Self::Convert(c) => c.run(output),
            Self::Combine(c) => c.run(output),
            Self::Methods(c) => c.run(output),
            Self::Recommend(c) => c.run(output),
            Self::Doctor(c) => c.run(output),
            Self::Init(c) => c.run(output),
            Self::Completions(c) => c.run(output),
        }
    }
}
