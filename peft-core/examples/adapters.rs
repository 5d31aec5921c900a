//! Several adapters of one model: what there is, combining, converting to LoRA, merging, saving.

mod common;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::Given;
use peft_core::combine::{Combination, Settings};
use peft_core::device::Threads;
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io::{IfExists, adapter};
use serde_json::json;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

/// Lists, combines, converts and merges the adapters of a model
#[derive(Debug, Parser)]
struct Options {
    /// Model directory
    model: PathBuf,
    /// Adapters: directories, each called by its folder's name, or by NAME=DIR; of a directory with several adapters, all
    #[arg(value_name = "[NAME=]DIR")]
    adapters: Vec<Given>,
    /// The same, as the other programs have it; may be repeated
    #[arg(long = "adapter", value_name = "[NAME=]DIR")]
    more: Vec<Given>,
    /// Classes of a classifier, if the model's file has no head
    #[arg(long, allow_negative_numbers = true)]
    classes: Option<i64>,
    /// Adds `combined`, made of these adapters and their weights: french=0.7,legal=0.3
    #[arg(long, value_delimiter = ',', value_name = "NAME=WEIGHT,...", value_parser = weighted)]
    combine: Vec<(String, f64)>,
    /// linear, cat, svd, ties, dare_ties, dare_linear, magnitude_prune, or ties_svd and so on
    #[arg(long, default_value = "linear", requires = "combine")]
    how: String,
    /// Share of values that is kept, for ties, dare and magnitude_prune
    #[arg(long, requires = "combine", allow_negative_numbers = true)]
    density: Option<f64>,
    /// Adds NAME-lora, a LoRA of --rank that changes the weights as NAME does
    #[arg(long, value_name = "NAME", requires = "rank")]
    to_lora: Option<String>,
    /// Rank of that LoRA
    #[arg(long, requires = "to_lora", allow_negative_numbers = true)]
    rank: Option<i64>,
    /// Writes a model directory with this adapter folded in
    #[arg(long, value_name = "NAME", requires = "out")]
    merge: Option<String>,
    /// Where --merge writes
    #[arg(long, value_name = "DIR", requires = "merge")]
    out: Option<PathBuf>,
    /// Writes all adapters, each into a folder of its name
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Replace adapters and a model that are there
    #[arg(long)]
    overwrite: bool,
    #[arg(long, default_value_t, help = Threads::HELP)]
    threads: Threads,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn weighted(text: &str) -> Result<(String, f64)> {
    let (name, weight) = text.split_once('=').context("expected NAME=WEIGHT")?;
    Ok((name.to_owned(), weight.parse().with_context(|| format!("weight `{weight}`"))?))
}

impl Options {
    fn run(&self) -> Result<()> {
        // Places to write to are tried first. Whether adapters are in the way is known when their names are.
        let if_exists = IfExists::overwrite(self.overwrite);
        if let Some(dir) = &self.save {
            adapter::writable(dir, IfExists::Replace)?;
        }
        if let Some(dir) = &self.out {
            hub::writable(dir, if_exists)?;
            let same = |save: &PathBuf| Ok::<_, std::io::Error>(save.canonicalize()? == dir.canonicalize()?);
            ensure!(
                !self.save.as_ref().map_or(Ok(false), same)?,
                "--out {}: the adapters go there",
                dir.display()
            );
        }
        let head = self.classes.map_or(Head::Stored, Head::Classes);
        let hub::Opened { mut peft, warnings, .. } = hub::open(&self.model, tch::Device::Cpu, head)?;
        common::warn(warnings);
        self.threads.set(peft.report(&[])?.all);
        common::load(&mut peft, &[&self.adapters[..], &self.more].concat())?;

        if !self.combine.is_empty() {
            let parts: Vec<(&str, f64)> = self.combine.iter().map(|(n, w)| (n.as_str(), *w)).collect();
            let settings = Settings { density: self.density, ..Settings::default() };
            peft.combine("combined", &parts, Combination::named(&self.how, settings)?)?;
        }
        let mut kept = None;
        if let (Some(name), Some(rank)) = (&self.to_lora, self.rank) {
            let conversion = peft.to_lora(name, &format!("{name}-lora"), rank)?;
            eprintln!("{name}-lora: {conversion}");
            kept = Some(conversion.kept());
        }

        if let Some(dir) = &self.save {
            peft.save_all_with(dir, if_exists)?;
            eprintln!("adapters: {}", dir.display());
        }
        if let (Some(name), Some(dir)) = (&self.merge, &self.out) {
            hub::save_with(&peft.merged(&[name])?, dir, Some(&self.model), if_exists)?;
            eprintln!("merged model: {}", dir.display());
        }

        // Last, since a reader who has seen enough ends the program here.
        let status = peft.status()?;
        if self.json {
            let adapters = status.adapters.iter().map(|a| {
                json!({
                    "name": a.name, "method": a.method, "peft_type": a.peft_type, "places": a.places,
                    "params": a.params, "trainable": a.trainable, "dtypes": a.dtypes
                })
            });
            let (model, params) = (&status.model_type, status.base_params);
            let adapters: Vec<_> = adapters.collect();
            writeln!(
                stdout(),
                "{}",
                json!({ "model_type": model, "params": params, "adapters": adapters, "kept": kept })
            )?;
        } else {
            writeln!(stdout(), "{status}")?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    peft_core::program::exit(Options::parse().run().map(|()| true))
}
