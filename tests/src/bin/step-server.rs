//! Training steps on request, to be timed beside another program (`peft-bench/python/side_by_side.py`).
//!
//! Prints `ready`; for each line `step K` on standard input it runs K steps and answers with one line
//! `{"ms": [...], "loss": [...]}`, losses as the bits of an f32 in hexadecimal.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use notebooks_rs::cli::Setting;
use notebooks_rs::lesson000::{Lesson, TECHNIQUES};
use peft_bench::cases::{ADAPTER, Case};
use peft_bench::task::Task;
use peft_bench::text::{Source, Text};
use peft_core::device::{DeviceChoice, Threads};
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
use peft_core::{Model, Pass};
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Runs training steps on request
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
    #[arg(long, global = true, default_value_t, help = Threads::HELP)]
    threads: Threads,
    #[arg(long, global = true, default_value_t = 0)]
    seed: i64,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, global = true, default_value = "cpu")]
    device: DeviceChoice,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Lesson 000's LoRA: the whole training split a step
    Lesson,
    /// A Hub model on text
    Text {
        #[arg(long)]
        model: PathBuf,
        #[arg(long)]
        train: PathBuf,
        #[arg(long)]
        test: PathBuf,
        #[arg(long, default_value = "lora")]
        method: String,
        #[arg(long, default_value_t = 3)]
        epochs: u64,
        #[arg(long)]
        batch: Option<usize>,
    },
}

fn main() -> ExitCode {
    peft_core::program::exit(run(&Options::parse()).map(|()| true))
}

fn run(options: &Options) -> Result<()> {
    let device = options.device.open()?;
    match &options.what {
        What::Lesson => {
            options.threads.set(0);
            let lesson = Lesson::new(Setting { seed: options.seed, device })?;
            let lora = TECHNIQUES.iter().find(|t| t.key == "lora").context("lora")?;
            let (adam, schedule) = (AdamConfig::adam(), Schedule::Constant);
            let mut trainer = Trainer::new(&lesson.peft, &[lora.key], adam, lora.lr, schedule)?;
            let model = lesson.peft.view(&[lora.key])?;
            serve(|| {
                let logits = model.forward(&lesson.train.batch, Pass::train())?;
                Ok(trainer.step(&cross_entropy(&logits, &lesson.train.classes)?)?.loss)
            })
        }
        What::Text { model, train, test, method, epochs, batch } => {
            let case = Case::find(method)?;
            let (model, train, test) = (model.clone(), train.clone(), test.clone());
            let source = Source { model, train, test, epochs: *epochs, new_head: true };
            let mut task = Text::open(&source, options.seed, device, case, *batch, |note| {
                eprintln!("note: {note}");
                Ok(())
            })?;
            options.threads.set(task.peft().report(&[])?.all);
            let (adam, schedule, lr) = (task.adam(), task.schedule(task.steps()), task.lr(case));
            let mut trainer = Trainer::new(task.peft(), &[ADAPTER], adam, lr, schedule)?;
            let model = task.peft().view(&[ADAPTER])?;
            serve(|| {
                let (batch, y, _) = task.next()?;
                let loss = cross_entropy(&model.forward(&batch, Pass::train())?, &y)?;
                Ok(trainer.step(&loss)?.loss)
            })
        }
    }
}

fn serve(mut step: impl FnMut() -> Result<f64>) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let Some(count) = line.trim().strip_prefix("step ").and_then(|n| n.parse::<usize>().ok()) else {
            bail!("expected `step K`, found `{line}`");
        };
        let (mut ms, mut loss) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let start = Instant::now();
            let value = step()?;
            ms.push(1e3 * start.elapsed().as_secs_f64());
            loss.push(format!("{:08x}", (value as f32).to_bits()));
        }
        serde_json::to_writer(&mut out, &serde_json::json!({ "ms": ms, "loss": loss }))?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}
