//! Fine-tunes a causal model on texts with a LoRA, as a run that can be stopped and gone on with.

use clap::Parser;
use peft_core::hub::{self, Head, TokenIds};
use peft_core::tch::Device;
use peft_core::text::{ChatTemplate, Corpus, Preparation};
use peft_core::train::{Checkpoints, Recipe, Run, Schedule};
use peft_core::{Result, TaskType, methods::LoraConfig};
use std::path::PathBuf;

/// Fine-tunes a causal language model on texts; started again, it goes on where it was (`peft train` does much more)
#[derive(Debug, Parser)]
struct Args {
    /// Model directory: config.json, model.safetensors, tokenizer.json
    model: PathBuf,
    /// Texts: one a line, JSON or a table, chats included
    data: PathBuf,
    /// Directory of the adapter
    out: PathBuf,
    /// Passes over the texts
    #[arg(long, default_value_t = 3)]
    epochs: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut peft = hub::open(&args.model, Device::Cpu, Head::Stored)?.peft;
    peft.add("mine", LoraConfig::new(8).task(TaskType::CausalLm))?;
    let (ids, template) = (TokenIds::read(&args.model)?, ChatTemplate::open(&args.model)?);
    let encoder = hub::encoder(&args.model, &peft)?;
    let texts =
        encoder.prepare(&Corpus::read(&args.data)?, &ids, template.as_ref(), Preparation::default())?;
    let total = args.epochs * texts.sequences.len().div_ceil(8) as u64;
    let schedule = Schedule::Cosine { warmup: total / 20, total };
    let recipe = Recipe { lr: 1e-3, schedule, batch: 8, ..Recipe::default() };
    let mut run = Run::new(&peft, &["mine"], &recipe, texts.sequences)?;

    let checkpoints = Checkpoints::new(args.out.join("checkpoints"));
    if let Some((_, newest)) = checkpoints.newest()?.found {
        run.load(newest.path)?;
    }
    while run.steps() < total {
        let step = run.step()?;
        println!("step {} of {total}: loss {:.3}", step.number, step.loss);
        if step.number % 100 == 0 {
            checkpoints.save(&run, &[])?;
            checkpoints.prune(2, &[])?;
        }
    }
    peft.save("mine", &args.out)
}
