//! A text classifier: trains an adapter on labelled texts, saves it with the names of its classes, and judges texts.

use clap::Parser;
use peft_core::hub::{self, Options};
use peft_core::tch::{self, Device};
use peft_core::train::{Recipe, Run, Schedule};
use peft_core::{Model, Pass, Result, TaskType, io::adapter, methods::LoraConfig, text::Dataset};
use std::path::{Path, PathBuf};

/// Trains a classifier of texts over a BERT or RoBERTa, and says the classes of texts
#[derive(Debug, Parser)]
struct Args {
    /// Model directory: config.json, model.safetensors, tokenizer.json
    model: PathBuf,
    /// Directory of the adapter
    adapter: PathBuf,
    /// Texts to judge
    texts: Vec<String>,
    /// Train the adapter first, on JSON lines with `text` and `label`
    #[arg(long, value_name = "FILE")]
    train: Option<PathBuf>,
    /// Passes over the texts
    #[arg(long, default_value_t = 3)]
    epochs: u64,
}

fn train(args: &Args, file: &Path) -> Result<()> {
    let data = Dataset::read(file)?;
    tch::manual_seed(0);
    let mut peft = hub::open(&args.model, Device::Cpu, Options::named(data.labels()))?.peft;
    peft.add("mine", LoraConfig::new(8).task(TaskType::SeqCls))?; // its task says that the head is trained as well
    let rows = hub::encoder(&args.model, &peft)?.encode(&data, &data.labels())?;
    let total = args.epochs * rows.len().div_ceil(32) as u64;
    let schedule = Schedule::Linear { warmup: 0, total };
    let mut run =
        Run::new(&peft, &["mine"], &Recipe { lr: 2e-3, schedule, batch: 32, ..Recipe::default() }, rows)?;
    while run.steps() < total {
        let step = run.step()?;
        println!("epoch {:.2}: loss {:.3}", step.epoch, step.loss);
    }
    peft.save("mine", &args.adapter)
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.train.as_ref().map_or(Ok(()), |file| train(&args, file))?;
    let classes = adapter::classes(&args.adapter)?;
    let mut peft = hub::open(&args.model, Device::Cpu, Options::named(&classes))?.peft;
    peft.load("mine", &args.adapter)?;
    let (encoder, view) = (hub::encoder(&args.model, &peft)?, peft.view(&["mine"])?);
    for text in &args.texts {
        let logits = view.forward(&encoder.inputs(&[text])?.batch(&[0], Device::Cpu)?, Pass::eval())?;
        println!("{}: {text}", classes[logits.f_argmax(None, false)?.f_int64_value(&[])? as usize]);
    }
    Ok(())
}
