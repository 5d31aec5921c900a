//! `peft check`.

use crate::common::table;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::recipe::{Recipe, Settings};
use crate::training::{Finding, State, check};
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;

/// Looks at everything that can be known before the first step, and takes some real ones
#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Examples:\n  peft check recipe.toml\n  peft check recipe.toml --lr 1e-2 --json\n\nEnds with 3 where something is \
                  wrong. Nothing is written."
)]
pub struct Check {
    /// Recipe, a TOML file; every field of it is a flag as well
    #[arg(value_name = "RECIPE.toml")]
    file: Option<PathBuf>,
    #[command(flatten)]
    flags: Box<Recipe>,
}

impl Check {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let said = self.file.as_deref().map_or_else(|| Ok(Recipe::default()), Recipe::read)?;
        let mut recipe = said.with(Recipe::clone(&self.flags)).context("flags")?;
        // Nothing is written: where to is no matter.
        recipe.output.get_or_insert_with(|| "unused".into());
        let found = match Settings::of(&recipe) {
            Ok(settings) => check(&settings, output),
            Err(e) => vec![Finding { what: "recipe", state: State::Fault, said: format!("{e:#}") }],
        };
        if output.json {
            found.iter().try_for_each(|finding| output.result(finding, |_| ""))?;
        } else {
            output.result(&(), |()| {
                let mut table = table(["", "what", "found"], 3);
                for finding in &found {
                    let state = match finding.state {
                        State::Ok => "ok",
                        State::Warning => "warning",
                        State::Fault => "FAULT",
                    };
                    table.add_row([state, finding.what, &finding.said]);
                }
                table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
                table.to_string()
            })?;
        }
        let faults = found.iter().any(|finding| finding.state == State::Fault);
        Ok(if faults { Outcome::Faults } else { Outcome::Done })
    }
}
