//! `peft init`.

use crate::outcome::Outcome;
use crate::output::Output;
use crate::recipe::{Recipe, Settings, template};
use anyhow::{Context, Result, bail};
use clap::Args;
use peft_core::io::write_atomically;
use std::io::{Write, stdout};
use std::path::PathBuf;

/// Writes a commented recipe
#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Examples:\n  peft init recipe.toml --model models/SmolLM2-135M-Instruct --data train.jsonl --output runs/mine\n  \
                  peft init --method dora --set r=16"
)]
pub struct Init {
    /// File to write; stdout where none is given
    #[arg(value_name = "RECIPE.toml")]
    file: Option<PathBuf>,
    #[command(flatten)]
    flags: Box<Recipe>,
    /// Replace a file that is there
    #[arg(long, help_heading = "Run")]
    overwrite: bool,
}

impl Init {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let said = Recipe::default().with(Recipe::clone(&self.flags))?;
        let some = |said: Option<String>, text: &str| said.or_else(|| Some(text.to_owned()));
        let recipe = Recipe {
            model: some(said.model, "models/SmolLM2-135M-Instruct"),
            data: some(said.data, "train.jsonl"),
            output: some(said.output, "runs/mine"),
            ..said
        };
        Settings::of(&recipe)?; // what `peft train` would refuse
        let text = template(&recipe)?;
        let Some(path) = &self.file else {
            stdout().write_all(text.as_bytes())?;
            return Ok(Outcome::Done);
        };
        if path.exists() && !self.overwrite {
            bail!("{}: is there already; --overwrite replaces it", path.display());
        }
        write_atomically(path, |file| {
            file.write_all(text.as_bytes())
                .map_err(|error| peft_core::Error::File { path: path.clone(), error })
        })
        .with_context(|| path.display().to_string())?;
        output.note(format!(
            "{}: change what is to be changed, then: peft train {}",
            path.display(),
            path.display()
        ));
        Ok(Outcome::Done)
    }
}
