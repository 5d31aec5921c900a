//! Generates text with a causal language model, each prompt with an adapter of its own where that is asked for.

mod common;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use common::Given;
use peft_core::Batch;
use peft_core::device::{DeviceChoice, Threads};
use peft_core::generate::{GenerateConfig, GenerationSettings, Sampling, generate};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::text::TextEncoder;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

/// Generates text with a causal language model and its adapters
#[derive(Debug, Parser)]
struct Options {
    /// Model directory
    model: PathBuf,
    /// Prompts; token ids ("5 17 2") where the directory has no tokenizer
    #[arg(required = true)]
    prompts: Vec<String>,
    /// An adapter, called by its folder's name or by NAME; of a directory with several, all; may be repeated
    #[arg(long = "adapter", value_name = "[NAME=]DIR")]
    adapters: Vec<Given>,
    /// The adapter of each prompt, or `-` for none: french,-,legal [default: the adapter there is]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', allow_hyphen_values = true)]
    rows: Vec<String>,
    /// New tokens at most [default: what generation_config.json says, or 40]
    #[arg(long, allow_negative_numbers = true)]
    tokens: Option<i64>,
    /// Draw tokens instead of taking the likeliest [default: what generation_config.json says]
    #[arg(long)]
    sample: bool,
    /// Take the likeliest tokens, whatever generation_config.json says
    #[arg(long, conflicts_with = "sample")]
    greedy: bool,
    /// What logits are divided by before tokens are drawn [default: what generation_config.json says, or 1]
    #[arg(long, conflicts_with = "greedy", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw from that many likeliest tokens, 0 for all [default: what generation_config.json says, or 50]
    #[arg(long, conflicts_with = "greedy", allow_negative_numbers = true)]
    top_k: Option<i64>,
    /// Draw from the likeliest tokens that have this probability together
    #[arg(long, conflicts_with = "greedy", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Seed of what is drawn [default: 0]
    #[arg(long, conflicts_with = "greedy")]
    seed: Option<u64>,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    #[arg(long, default_value_t, help = Threads::HELP)]
    threads: Threads,
    /// Print one JSON object a prompt
    #[arg(long)]
    json: bool,
}

impl Options {
    /// The directory's settings, where no option says otherwise.
    fn settings(&self) -> Result<GenerateConfig> {
        let defaults = GenerateConfig { max_new_tokens: 40, ..Default::default() };
        let GenerationSettings { mut config, sampling, warnings } =
            GenerationSettings::read(&self.model, defaults)?;
        common::warn(warnings);
        if let Some(tokens) = self.tokens {
            (config.max_new_tokens, config.max_length) = (tokens, None);
        }
        let asked =
            [self.temperature.is_some(), self.top_k.is_some(), self.top_p.is_some(), self.seed.is_some()];
        let sample = self.sample || config.sampling.is_some() && !self.greedy;
        ensure!(sample || asked == [false; 4], "--temperature, --top-k, --top-p and --seed need --sample");
        config.sampling = sample.then(|| Sampling {
            temperature: self.temperature.unwrap_or(sampling.temperature),
            top_k: self.top_k.or(sampling.top_k).filter(|k| *k != 0),
            top_p: self.top_p.or(sampling.top_p),
            seed: self.seed.unwrap_or(sampling.seed),
            ..sampling
        });
        Ok(config)
    }
}

impl Options {
    fn run(&self) -> Result<()> {
        let device = self.device.open()?;
        let dims = hub::architecture(&self.model, Head::Stored)?.dims();
        ensure!(dims.causal(), "{}: {} is not a causal model", self.model.display(), dims.model_type);
        let config = self.settings()?;
        let hub::Opened { mut peft, warnings, .. } = hub::open(&self.model, device, Head::Stored)?;
        common::warn(warnings);
        self.threads.set(peft.report(&[])?.all);
        let loaded = common::load(&mut peft, &self.adapters)?;
        let encoder =
            TextEncoder::exists(&self.model).then(|| hub::encoder(&self.model, &peft)).transpose()?;
        let encode = |prompt: &String| match &encoder {
            Some(encoder) => Ok(encoder.ids(prompt)?),
            None => prompt
                .split_whitespace()
                .map(|id| Ok(id.parse()?))
                .collect::<Result<Vec<i64>>>()
                .with_context(|| {
                    format!("`{prompt}`: {} has no tokenizer, so prompts are token ids", self.model.display())
                }),
        };
        let prompts = self.prompts.iter().map(encode).collect::<Result<Vec<_>>>()?;

        // One view with an adapter for all prompts, or one with an adapter for each.
        let names: Vec<&str> = match (loaded.as_slice(), self.rows.len()) {
            ([], 0) => vec!["-"; prompts.len()],
            ([name], 0) => vec![name; prompts.len()],
            (_, 0) => {
                bail!("--rows should say which prompt has which of the {} adapters", loaded.len())
            }
            (_, n) if n == prompts.len() => self.rows.iter().map(String::as_str).collect(),
            (_, n) => bail!("--rows names {n} adapters for {} prompts", prompts.len()),
        };
        let rows: Vec<Option<&str>> = names.iter().map(|n| (*n != "-").then_some(*n)).collect();
        let same = rows.iter().all(|row| *row == rows[0]);
        let model = if same { peft.view(rows[0].as_slice())? } else { peft.view_rows(&rows)? };

        let batch = Batch::padded(&prompts, config.pad_token_id, device)?;
        let tokens = Vec::<Vec<i64>>::try_from(generate(&model, &batch, &config)?)?;
        for ((prompt, name), mut ids) in self.prompts.iter().zip(names).zip(tokens) {
            // What is behind a row's end is padding.
            let end = ids.iter().position(|id| config.eos_token_ids.contains(id)).unwrap_or(ids.len());
            ids.truncate(end);
            let text = encoder.as_ref().map(|e| e.text(&ids)).transpose()?;
            match (self.json, &text) {
                (true, _) => writeln!(
                    stdout(),
                    "{}",
                    serde_json::json!({ "prompt": prompt, "adapter": name, "ids": ids, "text": text })
                ),
                (false, Some(text)) => writeln!(stdout(), "[{name}] {prompt}{text}"),
                (false, None) => writeln!(stdout(), "[{name}] {prompt} -> {ids:?}"),
            }?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    peft_core::program::exit(Options::parse().run().map(|()| true))
}
