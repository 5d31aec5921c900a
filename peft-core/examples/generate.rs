//! Text from a causal model, each row of one batch with an adapter of its own. `peft generate` is the program for daily use.

use anyhow::Result;
use clap::Parser;
use peft_core::generate::{GenerateConfig, generate};
use peft_core::hub::{self, Head};
use peft_core::tch::Device;
use peft_core::{Batch, Peft};

/// Goes on writing a prompt: once with the model as it is, and once with each adapter
#[derive(Debug, Parser)]
struct Args {
    /// Directory of a causal model with its tokenizer
    model: String,
    /// How the text begins
    prompt: String,
    /// Directories of adapters
    adapters: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut peft: Peft = hub::open(&args.model, Device::Cpu, Head::Stored)?.peft;
    for (number, dir) in (1..).zip(&args.adapters) {
        for warning in peft.load(&format!("adapter {number}"), dir)? {
            eprintln!("warning: {warning}");
        }
    }
    let names: Vec<String> = peft.names().into_iter().map(str::to_owned).collect();
    let rows: Vec<Option<&str>> =
        std::iter::once(None).chain(names.iter().map(|n| Some(n.as_str()))).collect();
    let encoder = hub::encoder(&args.model, &peft)?;
    let prompts = vec![encoder.ids(&args.prompt)?; rows.len()];
    let config = GenerateConfig { max_new_tokens: 40, ..GenerateConfig::default() };
    let batch = Batch::padded(&prompts, 0, Device::Cpu)?;
    let written = Vec::<Vec<i64>>::try_from(generate(&peft.view_rows(&rows)?, &batch, &config)?)?;
    for (adapter, ids) in rows.iter().zip(written) {
        println!("[{}] {}{}", adapter.unwrap_or("the model"), args.prompt, encoder.text(&ids)?);
    }
    Ok(())
}
