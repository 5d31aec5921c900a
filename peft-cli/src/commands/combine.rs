//! `peft combine`.

use crate::common::verify::Untouched;
use crate::common::{self, Adapters, Machine};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::Source;
use anyhow::{Context, Result, bail};
use clap::Args;
use peft_core::combine::{Combination, Settings};
use peft_core::io::{IfExists, adapter};
use serde::Serialize;
use std::path::PathBuf;

/// Makes one adapter of several
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  peft combine models/base runs/both --adapter runs/french --adapter runs/legal \\\n      \
                        --weights french=0.7,legal=0.3\n  peft combine models/base runs/both --adapter runs/french \
                        --adapter runs/legal \\\n      --weights french=1,legal=1 --how ties --density 0.5"
)]
pub struct Combine {
    /// Model: a directory, or an id of the Hub (owner/name, owner/name@revision)
    model: Source,
    /// Directory that the new adapter is written to
    out: PathBuf,
    #[command(flatten)]
    adapters: Adapters,
    /// What each counts: french=0.7,legal=0.3
    #[arg(long, value_delimiter = ',', value_name = "NAME=WEIGHT,...", value_parser = weighted, required = true)]
    weights: Vec<(String, f64)>,
    /// linear, cat, svd, ties, dare_ties, dare_linear, magnitude_prune, or ties_svd and so on
    #[arg(long, value_name = "WAY", default_value = "linear")]
    how: String,
    /// Share of values that is kept, for ties, dare and magnitude_prune
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    density: Option<f64>,
    /// Replace an adapter that is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    machine: Machine,
}

fn weighted(text: &str) -> Result<(String, f64)> {
    let (name, weight) = text.split_once('=').context("expected NAME=WEIGHT")?;
    Ok((name.to_owned(), weight.parse().with_context(|| format!("weight `{weight}`"))?))
}

#[derive(Debug, Serialize)]
struct Combined<'a> {
    out: String,
    how: &'a str,
    method: String,
    places: usize,
    params: i64,
}

impl Combine {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let device = self.machine.device()?;
        let if_exists = IfExists::overwrite(self.overwrite);
        let _untouched = Untouched::of(&self.out);
        adapter::writable(&self.out, if_exists)?;
        let settings = Settings { density: self.density, ..Settings::default() };
        let how = Combination::named(&self.how, settings)?;
        let mut peft = common::open(&self.model, &self.adapters, device, output)?.peft;
        self.machine.threads(&peft)?;
        let parts: Vec<(&str, f64)> = self.weights.iter().map(|(n, w)| (n.as_str(), *w)).collect();
        if let Some(name) = peft.names().into_iter().find(|name| !parts.iter().any(|(part, _)| part == name))
        {
            bail!("--weights: `{name}` has none; 0 leaves it out");
        }
        let new = free_name(&peft.names());
        peft.combine(&new, &parts, how)?;
        peft.save_with(&new, &self.out, if_exists)?;
        let status = peft.status()?;
        let made =
            status.adapters.into_iter().find(|a| a.name == new).context("the combined adapter is gone")?;
        let made = Combined {
            out: self.out.display().to_string(),
            how: &self.how,
            method: made.method,
            places: made.places,
            params: made.params,
        };
        output.result(&made, |c| {
            format!("{}: {} at {} places, {} parameters", c.out, c.method, c.places, c.params)
        })?;
        Ok(Outcome::Done)
    }
}

/// A name that no adapter has.
fn free_name(taken: &[&str]) -> String {
    let mut name = "combined".to_owned();
    while taken.contains(&name.as_str()) {
        name.push('_');
    }
    name
}
