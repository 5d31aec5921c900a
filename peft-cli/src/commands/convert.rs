//! `peft convert`.

use crate::common::verify::{self, Distance, Untouched};
use crate::common::{self, Fit, Given, Machine, Opened};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::Source;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use peft_core::hub;
use peft_core::io::{IfExists, adapter};
use serde::Serialize;
use std::path::PathBuf;

/// Writes an adapter as another program reads it, or as a LoRA
#[derive(Debug, Args)]
#[command(
    after_help = "--for writes a plain LoRA that vLLM or llama.cpp's converter reads. rsLoRA, PiSSA and OLoRA become one \
                        exactly (the latter two of twice the rank). Of other methods --to-lora makes the closest one, and the share \
                        is said; merging is the exact way. What is written is opened again and its logits are \
                        compared.\n\nExamples:\n  peft convert models/base runs/rslora runs/plain --for llama.cpp\n  peft convert \
                        models/base runs/dora runs/lora --to-lora 16"
)]
pub struct Convert {
    /// Model: a directory, or an id of the Hub (owner/name, owner/name@revision)
    model: Source,
    /// Adapter: a directory, or an id of the Hub (owner/name, owner/name/folder@revision); NAME=SOURCE calls it NAME
    #[arg(value_name = "ADAPTER")]
    adapter: Given,
    /// Directory that the new adapter is written to
    out: PathBuf,
    /// Write the closest LoRA of this rank
    #[arg(long, value_name = "RANK", allow_negative_numbers = true)]
    to_lora: Option<i64>,
    /// Write what this program takes
    #[arg(long = "for", value_enum, required_unless_present = "to_lora")]
    reader: Option<Reader>,
    #[command(flatten)]
    fit: Fit,
    /// Replace an adapter that is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    machine: Machine,
}

/// Programs that adapters are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reader {
    Vllm,
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

#[derive(Debug, Serialize)]
struct Written {
    out: String,
    /// Share of the change that is kept; 1 where it is exact.
    kept: f64,
    exact: bool,
    what: String,
    /// Between what the adapter computes and what the new one does.
    distance: Distance,
}

impl Convert {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let device = self.machine.device()?;
        let if_exists = IfExists::overwrite(self.overwrite);
        let _untouched = Untouched::of(&self.out);
        adapter::writable(&self.out, if_exists)?;
        let (opened, name) = common::open_for(&self.model, &self.adapter, self.fit, device, output)?;
        let Opened { mut peft, dir, .. } = opened;
        self.machine.threads(&peft)?;
        let new = format!("{name}-converted");
        let (kept, exact, what) = match (self.reader, self.to_lora) {
            (Some(_), None) => {
                let plain = peft.to_plain_lora(&name, &new).context(
                    "no plain LoRA is the same; --to-lora RANK adds the closest one, and `peft merge` is the exact way",
                )?;
                (1.0, true, plain.to_string())
            }
            (reader, Some(rank)) => {
                let conversion = peft.to_lora(&name, &new, rank)?;
                if reader.is_some() {
                    // What it has beside the two factors is refused.
                    let plain = format!("{new}-plain");
                    peft.to_plain_lora(&new, &plain).context("`peft merge` is the way")?;
                }
                (conversion.kept(), false, conversion.to_string())
            }
            (None, None) => bail!("--for or --to-lora should say what to write"),
        };
        let distance = verify::written(
            &self.out,
            if_exists,
            |to, if_exists| peft.save_with(&new, to, if_exists),
            |written| {
                let options = common::options(&dir, self.fit.classes, std::iter::once(written))?;
                let mut again = hub::open(&dir, device, options)?.peft;
                again.load_with("written", written, self.fit.other())?;
                let what = self.out.display().to_string();
                Distance::between(&peft, &[&new], &again, &["written"])?.check(&what)?;
                let distance = Distance::between(&peft, &[&name], &again, &["written"])?;
                if exact { distance.check(&what) } else { Ok(distance) }
            },
        )?;
        let written = Written { out: self.out.display().to_string(), kept, exact, what, distance };
        output.result(&written, |w| {
            let how = if w.exact { "exact" } else { "not exact, merging is" };
            format!("{}: {} ({how}); logits {:.1e} apart", w.out, w.what, w.distance.error)
        })?;
        Ok(Outcome::Done)
    }
}
