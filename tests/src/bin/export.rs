//! Folds an adapter into its base and writes the result as a Hub directory, with logits to compare: what
//! `tests/python/check_saved.py` reads.

use anyhow::Result;
use clap::Parser;
use peft_core::hub;
use peft_core::io::tensors;
use peft_core::{Batch, Pass};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Writes BASE with ADAPTER folded in to OUT, and to OUT/logits.safetensors ids and logits
#[derive(Parser)]
struct Args {
    base: PathBuf,
    adapter: PathBuf,
    out: PathBuf,
    /// Write the logits alone: of an adapter that cannot be folded in, for example
    #[arg(long)]
    logits: bool,
}

fn main() -> Result<()> {
    let Args { base, adapter, out, logits: alone } = &Args::parse();
    let mut peft = hub::open(base, Device::Cpu, hub::Head::Stored)?.peft;
    peft.load("adapter", adapter)?;
    tch::manual_seed(1);
    let input_ids = Tensor::randint_low(3, 96, [3, 9], (Kind::Int64, Device::Cpu));
    let batch = Batch::dense(input_ids.copy());
    let logits = |peft: &peft_core::Peft, active: &[&str]| peft.view(active)?.forward(&batch, Pass::eval());
    if *alone {
        return write(out, [("adapted", logits(&peft, &["adapter"])?), ("input_ids", input_ids)]);
    }
    let merged = peft.merged(&["adapter"])?;
    hub::save(&merged, out, Some(base))?;
    write(
        out,
        [
            ("adapted", logits(&peft, &["adapter"])?),
            ("merged", logits(&merged, &[])?),
            ("input_ids", input_ids),
        ],
    )
}

fn write<const N: usize>(out: &Path, named: [(&str, Tensor); N]) -> Result<()> {
    let named: BTreeMap<String, Tensor> = named.into_iter().map(|(name, t)| (name.to_owned(), t)).collect();
    Ok(tensors::write(out.join("logits.safetensors"), &named)?)
}
