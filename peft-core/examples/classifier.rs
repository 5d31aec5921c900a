//! A text classifier: trains an adapter on labelled texts, saves it with the names of its classes, and judges texts.

use clap::Parser;
use peft_core::hub::{self, Options};
use peft_core::tch::{self, Device};
use peft_core::train::{AdamConfig, Schedule, Shuffle, Trainer, cross_entropy};
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
    let schedule = Schedule::Linear { warmup: 0, total: args.epochs * rows.len().div_ceil(32) as u64 };
    let mut trainer = Trainer::new(&peft, &["mine"], AdamConfig::default(), 2e-3, schedule)?;
    let view = peft.view(&["mine"])?;
    for epoch in 1..=args.epochs {
        let mut last = 0.0;
        for rows_of_step in Shuffle::new(rows.len(), 0).epoch(epoch).chunks(32) {
            let (batch, classes) = rows.batch(rows_of_step, Device::Cpu)?;
            let loss = cross_entropy(&view.forward(&batch, Pass::train())?, &classes)?;
            last = trainer.step(&loss)?.loss;
        }
        println!("epoch {epoch}: loss {last:.3}");
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
