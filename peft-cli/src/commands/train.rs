//! `peft train`.

use crate::outcome::Outcome;
use crate::output::Output;
use crate::recipe::Recipe;
use crate::training::{self, Mode, RECIPE};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};

/// Trains an adapter as a recipe says
#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Examples:\n  peft init recipe.toml && peft train recipe.toml\n  peft train recipe.toml --lr 5e-4 --set r=16 \
                  --output runs/r16\n  peft train --resume --output runs/r16\n  peft train --model models/SmolLM2-135M-Instruct \
                  --data train.jsonl --output runs/mine\n\nEnds with 0 when it is done, 1 for an error, 4 when a signal or \
                  max_time stopped it (--resume goes on), 5 when it diverged."
)]
pub struct Train {
    /// Recipe, a TOML file (peft init writes one); every field of it is a flag as well
    #[arg(value_name = "RECIPE.toml")]
    file: Option<PathBuf>,
    #[command(flatten)]
    flags: Recipe,
    /// Go on with the run that is in the output directory; without a recipe, with its own
    #[arg(long, conflicts_with = "overwrite", help_heading = "Run")]
    resume: bool,
    /// Take away the run that is in the output directory
    #[arg(long, help_heading = "Run")]
    overwrite: bool,
}

impl Train {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let mode = match (self.resume, self.overwrite) {
            (true, _) => Mode::Resume,
            (_, true) => Mode::Overwrite,
            _ => Mode::New,
        };
        training::train(&self.recipe()?, mode, output)
    }

    fn recipe(&self) -> Result<Recipe> {
        let file = match (&self.file, &self.flags.output) {
            (Some(file), _) => Some(file.clone()),
            (None, Some(dir)) if self.resume => {
                let file = Path::new(dir).join(RECIPE);
                ensure!(
                    file.exists() || self.flags.model.is_some(),
                    "{dir}: there is no run to go on with ({RECIPE} is missing); give the recipe"
                );
                file.exists().then_some(file)
            }
            (None, _) => None,
        };
        match file {
            Some(file) => Recipe::read(&file)?.with(self.flags.clone()).context("flags"),
            None => Recipe::default().with(self.flags.clone()).context("flags"),
        }
    }
}
