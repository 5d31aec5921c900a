//! `peft inspect`.

mod adapter;
mod model;
mod run;
mod tensors;

use crate::common::Fit;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::Source;
use adapter::Adapter;
use anyhow::{Result, bail};
use clap::Args;
use model::Model;
use peft_core::hub;
use peft_core::io;
use run::{Checkpoint, Run};
use serde::Serialize;
use std::path::Path;

/// Says what a model, an adapter, a checkpoint or a run is made of
#[derive(Debug, Args)]
#[command(
    after_help = "Of a run's directory: its adapter, and its checkpoints, whole or torn. Exit code 3: a value is NaN or \
                        infinite, or a checkpoint is torn.\n\nExamples:\n  peft inspect models/base\n  peft inspect runs/mine \
                        --base models/base    how much it changes, site by site\n  peft inspect \
                        runs/mine/checkpoints/checkpoint-400\n  peft inspect runs/mine --json | jq .not_finite"
)]
pub struct Inspect {
    /// Directory of a model, an adapter, a checkpoint or a run; or an id of the Hub
    path: Source,
    /// The adapter's model, to compare with
    #[arg(long, value_name = "MODEL")]
    base: Option<Source>,
    #[command(flatten)]
    fit: Fit,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Found {
    Model(Model),
    Adapter(Adapter),
    Checkpoint(Checkpoint),
    Run(Run),
}

impl Inspect {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        // Of a repository it is not known what it has until it is asked for.
        let dir = self.path.adapter(output).or_else(|_| self.path.model(output))?;
        let found = self.found(&dir, output)?;
        found.iter().try_for_each(|found| output.result(found, Found::text))?;
        Ok(if found.iter().any(Found::bad) { Outcome::Faults } else { Outcome::Done })
    }

    /// All that the directory is: that of a run that has ended is an adapter, too.
    fn found(&self, dir: &Path, output: &Output) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        if io::adapter::exists(dir).unwrap_or_default() {
            found.push(Found::Adapter(Adapter::read(dir, self, output)?));
        }
        if dir.join(run::CHECKPOINTS).is_dir() {
            found.push(Found::Run(Run::read(dir)?));
        }
        if found.is_empty() {
            found.push(if ["manifest.json", "run.json"].iter().any(|file| dir.join(file).exists()) {
                Found::Checkpoint(Checkpoint::read(dir)?)
            } else if dir.join(hub::CONFIG).exists() {
                Found::Model(Model::read(dir, output)?)
            } else {
                bail!("{}: there is no adapter, no model and no checkpoint", dir.display());
            });
        }
        Ok(found)
    }
}

impl Found {
    fn text(&self) -> String {
        match self {
            Found::Model(model) => model.text(),
            Found::Adapter(adapter) => adapter.text(),
            Found::Checkpoint(checkpoint) => checkpoint.text(),
            Found::Run(run) => run.text(),
        }
    }

    /// Whether something is wrong with it.
    fn bad(&self) -> bool {
        match self {
            Found::Model(Model { tensors, .. }) | Found::Adapter(Adapter { tensors, .. }) => {
                !tensors.not_finite.is_empty()
            }
            Found::Checkpoint(c) => c.torn.is_some() || !c.tensors.not_finite.is_empty(),
            Found::Run(run) => run.torn(),
        }
    }
}
