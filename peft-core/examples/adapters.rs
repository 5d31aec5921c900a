//! Several adapters of one model: combined, converted to a LoRA, merged, saved. `peft combine`, `peft convert` and `peft merge`
//! are the programs for daily use.

use anyhow::Result;
use clap::Parser;
use peft_core::combine::{Combination, Settings};
use peft_core::hub::{self, Head};
use peft_core::tch::Device;

/// Combines two adapters of a model, converts the result to a small LoRA, and merges it
#[derive(Debug, Parser)]
struct Args {
    /// Model directory
    model: String,
    /// The one adapter's directory
    one: String,
    /// The other's
    other: String,
    /// Where the combined adapter is written (`OUT/both`), the LoRA (`OUT/small`) and the merged model (`OUT/merged`)
    out: String,
    /// Rank of the LoRA
    #[arg(long, default_value_t = 4)]
    rank: i64,
}

fn main() -> Result<()> {
    let Args { model, one, other, out, rank } = Args::parse();
    let mut peft = hub::open(&model, Device::Cpu, Head::Stored)?.peft;
    for warning in [peft.load("one", one)?, peft.load("other", other)?].concat() {
        eprintln!("warning: {warning}");
    }
    let how = Combination::named("ties_svd", Settings { density: Some(0.5), ..Settings::default() })?;
    peft.combine("both", &[("one", 0.7), ("other", 0.3)], how)?;
    println!("small: {}", peft.to_lora("both", "small", rank)?);
    println!("{}", peft.status()?);
    peft.save("both", format!("{out}/both"))?;
    peft.save("small", format!("{out}/small"))?;
    hub::save(&peft.merged(&["both"])?, format!("{out}/merged"), Some(model.as_ref()))?;
    Ok(())
}
