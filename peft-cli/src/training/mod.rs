//! A training from a recipe: its directory, its data, its run, and what comes of it.

mod check;
mod data;
mod finish;
mod forecast;
mod order;
mod place;
mod progress;
mod samples;
mod session;
mod setup;
mod signals;
mod words;

pub use check::{Finding, State, check};
pub use place::{Mode, RECIPE};
pub use setup::{ADAPTER, Setup};

use crate::outcome::Outcome;
use crate::output::Output;
use crate::recipe::{Recipe, Settings};
use anyhow::Result;
use order::Order;
use session::Session;
use signals::Signals;

/// Trains as a recipe says, once for each of its seeds.
pub fn train(recipe: &Recipe, mode: Mode, output: &Output) -> Result<Outcome> {
    let settings = Settings::of(recipe)?;
    let signals = Signals::listen()?;
    let several = settings.seeds.len() > 1;
    let mut finished = Vec::new();
    for seed in &settings.seeds {
        let dir = match several {
            false => settings.output.clone(),
            true => settings.output.join(format!("seed-{seed}")),
        };
        let order = Order { recipe, settings: &settings, seed: *seed };
        match Session::open(order, &dir, mode, output)?.train(&signals)? {
            Ok(one) => finished.push(one),
            Err(outcome) => return Ok(outcome),
        }
    }
    if several {
        finish::together(&settings, finished, output)?;
    }
    Ok(Outcome::Done)
}
