//! `peft merge`.

use crate::common::verify::{self, Distance, Untouched};
use crate::common::{self, Fit, Given, Machine};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::Source;
use anyhow::Result;
use clap::Args;
use peft_core::hub::{self, Head};
use peft_core::io::IfExists;
use peft_core::{MergeOptions, Quantised};
use serde::Serialize;
use std::path::PathBuf;

/// Folds an adapter into its model, and verifies what it has written
#[derive(Debug, Args)]
#[command(
    after_help = "What is written is opened again and its logits are compared with those of the model with its \
                        adapter; it is put in its place only if they agree: within 1e-4 of the largest in 32 bits, 1e-2 in \
                        f16, 5e-2 in bf16.\n\nExamples:\n  peft merge models/base runs/mine models/merged\n  peft merge \
                        models/base runs/mine models/merged --overwrite --json"
)]
pub struct Merge {
    /// Model: a directory, or an id of the Hub (owner/name, owner/name@revision)
    model: Source,
    /// Adapter: a directory, or an id of the Hub (owner/name, owner/name/folder@revision); NAME=SOURCE calls it NAME
    #[arg(value_name = "ADAPTER")]
    adapter: Given,
    /// Directory that the merged model is written to
    out: PathBuf,
    #[command(flatten)]
    fit: Fit,
    /// Put weights that were in 4 bits back into 4 bits, which is lossy, instead of leaving them dense
    #[arg(long)]
    requantise: bool,
    /// Replace a model that is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Written {
    out: String,
    parameters: i64,
    #[serde(flatten)]
    distance: Distance,
    requantised: Option<String>,
}

impl Merge {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let device = self.machine.device()?;
        let if_exists = IfExists::overwrite(self.overwrite);
        let _untouched = Untouched::of(&self.out);
        hub::writable(&self.out, if_exists)?;
        let (opened, name) = common::open_for(&self.model, &self.adapter, self.fit, device, output)?;
        let (peft, dir) = (&opened.peft, &opened.dir);
        anyhow::ensure!(!common::same(dir, &self.out), "{}: the model itself is there", self.out.display());
        self.machine.threads(peft)?;
        let quantised = if self.requantise { Quantised::Requantise } else { Quantised::Dense };
        let merged = peft.merged_with(&[&name], &MergeOptions { quantised, ..MergeOptions::default() })?;
        let lossy = !merged.requantised.is_empty();
        let distance = verify::written(
            &self.out,
            if_exists,
            |to, if_exists| hub::save_with(&merged.peft, to, Some(dir), if_exists),
            |written| {
                let again = hub::open(written, device, Head::Stored)?.peft;
                let what = self.out.display().to_string();
                Distance::between(&merged.peft, &[], &again, &[])?.check(&what)?;
                let distance = Distance::between(peft, &[&name], &again, &[])?;
                // What was quantised again is another model, by as much as is said of it.
                if lossy { Ok(distance) } else { distance.check(&what) }
            },
        )?;
        let written = Written {
            out: self.out.display().to_string(),
            parameters: merged.peft.report(&[])?.all,
            distance,
            requantised: lossy.then(|| merged.to_string()),
        };
        output.result(&written, |w| {
            let lossy = w.requantised.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
            format!("{}: merged; {}{lossy}", w.out, w.distance)
        })?;
        Ok(Outcome::Done)
    }
}
