//! Fine-tunes a causal language model on texts with an adapter, and saves the adapter as PEFT does.

mod common;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use peft_core::device::{DeviceChoice, Threads};
use peft_core::hub;
use peft_core::hub::{Head, TokenIds};
use peft_core::io::{IfExists, adapter};
use peft_core::methods::{Common, Ia3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig};
use peft_core::quant::Nf4Config;
use peft_core::seam::MethodConfig;
use peft_core::text::{ChatTemplate, Corpus, Limits, Preparation, TextEncoder};
use peft_core::train::{AdamConfig, Schedule, Shuffle, Trainer, next_token_loss};
use peft_core::{Pass, TaskType};
use std::path::PathBuf;
use std::process::ExitCode;

/// Fine-tunes a causal language model (Llama, Mistral, Qwen2, GPT-2) on texts with an adapter
#[derive(Debug, Parser)]
#[command(allow_negative_numbers = true)]
struct Options {
    /// Model directory: config.json, model.safetensors or its shards, tokenizer.json
    model: PathBuf,
    /// Texts: one a line, or JSON (.jsonl, .json) with `text`, `prompt` and `completion`, Alpaca's `instruction`, `input`
    /// and `output`, or chats as `messages`, which the model's template puts into words, to learn what the assistant says. Of prompts, nothing is learned
    data: PathBuf,
    /// Directory for the adapter
    out: PathBuf,
    /// Method to train with
    #[arg(long, value_enum, default_value = "lora")]
    method: Name,
    /// Rank of lora and dora (alpha is twice that), virtual tokens of prefix and prompt
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i64).range(1..))]
    size: i64,
    /// Keep the base's linear layers in 4 bits (QLoRA)
    #[arg(long)]
    nf4: bool,
    /// Also write a model directory with the adapter folded in
    #[arg(long, value_name = "DIR")]
    merge: Option<PathBuf>,
    /// Replace the adapter and the merged model that are there
    #[arg(long)]
    overwrite: bool,
    /// Passes over the texts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Texts a step
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Longest text in tokens; what is beyond is cut
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(i64).range(2..))]
    length: i64,
    /// Peak learning rate, after a warm-up of 5 % of the steps [default: the method's]
    #[arg(long, value_parser = common::positive::<f64>)]
    lr: Option<f64>,
    /// Seed of the adapter, of dropout and of the order of the texts
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    #[arg(long, default_value_t, help = Threads::HELP)]
    threads: Threads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Lora,
    Dora,
    Ia3,
    Prefix,
    Prompt,
}

impl Options {
    fn adapter(&self) -> Box<dyn MethodConfig> {
        let base = Some(self.model.display().to_string()); // where PEFT looks for the base
        let task_type = Some(TaskType::CausalLm);
        let common = Common { task_type, base_model_name_or_path: base, ..Default::default() };
        let (r, lora_alpha, num_virtual_tokens) = (self.size, 2.0 * self.size as f64, self.size);
        let lora = LoraConfig { r, lora_alpha, common: common.clone(), ..Default::default() };
        match self.method {
            Name::Lora => lora.into(),
            Name::Dora => LoraConfig { use_dora: true, ..lora }.into(),
            Name::Ia3 => Ia3Config { common, ..Default::default() }.into(),
            Name::Prefix => PrefixTuningConfig { num_virtual_tokens, common, ..Default::default() }.into(),
            Name::Prompt => PromptTuningConfig { num_virtual_tokens, common, ..Default::default() }.into(),
        }
    }
}

impl Options {
    fn run(&self) -> Result<()> {
        let device = self.device.open()?;
        let prompts = matches!(self.method, Name::Prefix | Name::Prompt);
        ensure!(!prompts || self.merge.is_none(), "--merge: {:?} is no change of weights", self.method);

        // What is quick to check comes first: places to write to, then the texts.
        let if_exists = IfExists::overwrite(self.overwrite);
        adapter::writable(&self.out, if_exists)?;
        if let Some(dir) = &self.merge {
            hub::writable(dir, if_exists)?;
            let same = dir.canonicalize()? == self.out.canonicalize()?;
            ensure!(!same, "--merge {}: the adapter goes there", dir.display());
        }
        let dims = hub::architecture(&self.model, Head::Stored)?.dims();
        ensure!(dims.causal(), "{}: {} is not a causal model", self.model.display(), dims.model_type);
        let virtual_tokens = if prompts { self.size } else { 0 };
        let limits = Limits::of(&dims, &self.model)?.within(self.length, virtual_tokens);
        let encoder = TextEncoder::open(&self.model, limits)?;
        let ids = TokenIds::read(&self.model)?;
        let corpus = Corpus::read(&self.data)?;
        let template = ChatTemplate::open(&self.model)?;
        let prepared = encoder.prepare(&corpus, &ids, template.as_ref(), Preparation::default())?;
        common::warn(prepared.warnings);
        let data = prepared.sequences;
        println!("{}: {} rows", corpus.form, corpus.rows.len());

        let quantise = self.nf4.then(Nf4Config::default);
        let options = hub::Options { quantise, ..Head::Stored.into() };
        let hub::Opened { mut peft, warnings, .. } = hub::open(&self.model, device, options)?;
        common::warn(warnings);
        self.threads.set(peft.report(&[])?.all);
        tch::manual_seed(self.seed);
        peft.add("mine", self.adapter())?;
        println!("{}", peft.report(&["mine"])?);

        let (batch, steps) = (self.batch as usize, data.len().div_ceil(self.batch as usize));
        let total = self.epochs * steps as u64;
        let schedule = Schedule::Linear { warmup: total / 20, total };
        let lr = self.lr.unwrap_or(if matches!(self.method, Name::Lora | Name::Dora) { 1e-3 } else { 1e-2 });
        let mut trainer = Trainer::new(&peft, &["mine"], AdamConfig::default(), lr, schedule)?.clip(1.0);
        let shuffle = Shuffle::new(data.len(), self.seed.cast_unsigned());
        let model = peft.view(&["mine"])?;
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} steps, {eta} left, {msg}")?;
        let bar = ProgressBar::new(total).with_style(style);
        for epoch in 1..=self.epochs {
            let mut sum = 0.0;
            for rows in shuffle.epoch(epoch).chunks(batch) {
                let (rows, labels) = data.batch(rows, device)?;
                let loss = next_token_loss(&model.forward(&rows, Pass::train())?, &labels)?;
                let done = trainer.step(&loss)?;
                sum += done.loss;
                bar.set_message(format!("loss {:.3}", done.loss));
                bar.inc(1);
            }
            let mean = sum / steps as f64;
            bar.suspend(|| println!("epoch {epoch}: loss {mean:.4}"));
        }
        bar.finish_and_clear();

        peft.save_with("mine", &self.out, if_exists)?;
        println!("adapter: {}", self.out.display());
        if let Some(dir) = &self.merge {
            hub::save_with(&peft.merged(&["mine"])?, dir, Some(&self.model), if_exists)?;
            println!("merged model: {}", dir.display());
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    peft_core::program::exit(Options::parse().run().map(|()| true))
}
