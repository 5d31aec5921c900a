//! `peft generate`.

use crate::common::{self, Adapters, Machine, Opened};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::Source;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use peft_core::Batch;
use peft_core::generate::{GenerateConfig, GenerationSettings, Sampling, generate};
use peft_core::hub;
use peft_core::tch::Device;
use peft_core::text::{ChatTemplate, TextEncoder};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Writes text with a causal model and its adapters
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  peft generate models/SmolLM2 \"Once upon a\" --adapter runs/mine\n  peft generate \
                        models/SmolLM2 --chat --system \"Be brief.\" \"What is a kernel?\" --adapter runs/mine\n  peft \
                        generate models/SmolLM2 \"Bonjour\" \"Whereas\" \"Hello\" --adapter fr=runs/french --adapter \
                        runs/legal \\\n      --rows fr,legal,-\n  peft generate models/SmolLM2 --prompts questions.txt \
                        --sample --temperature 0.7 --json > answers.jsonl"
)]
pub struct Generate {
    /// Causal model: a directory, or an id of the Hub (owner/name, owner/name@revision)
    model: Source,
    /// Prompts; token ids ("5 17 2") where the model has no tokenizer
    prompts: Vec<String>,
    /// More prompts, one a line of a file; - for stdin
    #[arg(long = "prompts", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    adapters: Adapters,
    /// The adapter of each prompt, or `-` for none: french,-,legal [default: the adapter there is]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', allow_hyphen_values = true)]
    rows: Vec<String>,
    /// A prompt is a user's message in a chat, by the model's chat template
    #[arg(long)]
    chat: bool,
    /// The system's message before it
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Prompts that are computed at once
    #[arg(long, value_name = "ROWS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    #[command(flatten)]
    drawing: Drawing,
    #[command(flatten)]
    machine: Machine,
}

/// How tokens are chosen.
#[derive(Debug, Args)]
struct Drawing {
    /// New tokens at most [default: what generation_config.json says, or 40; with --chat 256]
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
}

impl Drawing {
    /// The directory's settings, where no option says otherwise.
    fn settings(&self, dir: &Path, chat: bool, output: &Output) -> Result<GenerateConfig> {
        let usual = if chat { 256 } else { 40 };
        let defaults = GenerateConfig { max_new_tokens: usual, ..Default::default() };
        let GenerationSettings { mut config, sampling, warnings } = GenerationSettings::read(dir, defaults)?;
        output.warn(warnings);
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

/// What was written to one prompt.
#[derive(Debug, Serialize)]
struct Written<'a> {
    prompt: &'a str,
    adapter: &'a str,
    ids: Vec<i64>,
    text: Option<String>,
}

impl Generate {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let device = self.machine.device()?;
        let prompts = self.texts()?;
        let Opened { peft, dir, names } = common::open(&self.model, &self.adapters, device, output)?;
        let dims = &peft.outline().dims;
        ensure!(dims.causal(), "{}: {} is not a causal model", self.model.name(), dims.model_type);
        let config = self.drawing.settings(&dir, self.chat, output)?;
        self.machine.threads(&peft)?;
        let encoder = TextEncoder::exists(&dir).then(|| hub::encoder(&dir, &peft)).transpose()?;
        let prompter = Prompter::new(self, &dir, encoder.as_ref())?;
        let ids = prompts.iter().map(|p| prompter.ids(p)).collect::<Result<Vec<_>>>()?;
        let adapters = self.adapters_of(&names, prompts.len())?;
        let batch = usize::from(self.batch);
        for (number, ((prompts, adapters), ids)) in
            prompts.chunks(batch).zip(adapters.chunks(batch)).zip(ids.chunks(batch)).enumerate()
        {
            let config = seeded(&config, number);
            for (prompt, (adapter, ids)) in prompts.iter().zip(
                adapters
                    .iter()
                    .zip(write(&peft, adapters, ids, &config, device).map_err(|e| of_file(e, &dir))?),
            ) {
                let text = encoder.as_ref().map(|e| e.text(&ids)).transpose()?;
                let written = Written { prompt, adapter, ids, text };
                let chat = self.chat;
                output.result(&written, |w| match &w.text {
                    Some(text) if chat => format!("[{}] {}\n{}\n", w.adapter, w.prompt, text.trim()),
                    Some(text) => format!("[{}] {}{text}", w.adapter, w.prompt),
                    None => format!("[{}] {} -> {:?}", w.adapter, w.prompt, w.ids),
                })?;
            }
        }
        Ok(Outcome::Done)
    }

    /// All prompts, of the command line and of the file.
    fn texts(&self) -> Result<Vec<String>> {
        let mut prompts = self.prompts.clone();
        if let Some(path) = &self.file {
            let text = if path == Path::new("-") {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("stdin")?;
                text
            } else {
                std::fs::read_to_string(path).with_context(|| path.display().to_string())?
            };
            prompts.extend(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
        }
        ensure!(!prompts.is_empty(), "there is no prompt: give some, or --prompts FILE");
        Ok(prompts)
    }

    /// The adapter of each prompt; `-` for none.
    fn adapters_of<'a>(&'a self, loaded: &'a [String], prompts: usize) -> Result<Vec<&'a str>> {
        Ok(match (loaded, self.rows.len()) {
            ([], 0) => vec!["-"; prompts],
            ([name], 0) => vec![name; prompts],
            (_, 0) => bail!("--rows should say which prompt has which of the {} adapters", loaded.len()),
            (_, n) if n == prompts => self.rows.iter().map(String::as_str).collect(),
            (_, n) => bail!("--rows names {n} adapters for {prompts} prompts"),
        })
    }
}

/// Of one batch, the new ids of each row. One view has an adapter for all rows, or one for each.
fn write(
    peft: &peft_core::Peft,
    adapters: &[&str],
    prompts: &[Vec<i64>],
    config: &GenerateConfig,
    device: Device,
) -> Result<Vec<Vec<i64>>> {
    let rows: Vec<Option<&str>> = adapters.iter().map(|n| (*n != "-").then_some(*n)).collect();
    let model = match rows.split_first() {
        Some((first, others)) if others.iter().all(|row| row == first) => peft.view(first.as_slice())?,
        _ => peft.view_rows(&rows)?,
    };
    let batch = Batch::padded(prompts, config.pad_token_id, device)?;
    let mut all = Vec::<Vec<i64>>::try_from(generate(model.as_ref(), &batch, config)?)?;
    for ids in &mut all {
        // What is behind a row's end is padding.
        let end = ids.iter().position(|id| config.eos_token_ids.contains(id)).unwrap_or(ids.len());
        ids.truncate(end);
    }
    Ok(all)
}

/// The settings of a batch: every one draws its own numbers.
fn seeded(config: &GenerateConfig, batch: usize) -> GenerateConfig {
    let more = u64::try_from(batch).unwrap_or_default();
    let sampling = config.sampling.clone().map(|s| Sampling { seed: s.seed.wrapping_add(more), ..s });
    GenerateConfig { sampling, ..config.clone() }
}

/// From a prompt to ids.
struct Prompter<'a> {
    options: &'a Generate,
    encoder: Option<&'a TextEncoder>,
    template: Option<ChatTemplate>,
}

impl<'a> Prompter<'a> {
    fn new(options: &'a Generate, dir: &Path, encoder: Option<&'a TextEncoder>) -> Result<Self> {
        let template = if options.chat { ChatTemplate::open(dir)? } else { None };
        let model = options.model.name();
        ensure!(!options.chat || encoder.is_some(), "{model}: --chat needs a tokenizer, and there is none");
        ensure!(
            !options.chat || template.is_some(),
            "{model}: there is no chat template; without --chat prompts are taken as they are"
        );
        Ok(Self { options, encoder, template })
    }

    fn ids(&self, prompt: &str) -> Result<Vec<i64>> {
        match (self.encoder, &self.template) {
            (Some(encoder), Some(template)) => {
                let system =
                    self.options.system.iter().map(|text| json!({ "role": "system", "content": text }));
                let user = json!({ "role": "user", "content": prompt });
                let messages: Vec<Value> = system.chain([user]).collect();
                Ok(encoder.plain(&template.render(&messages, None, true)?)?)
            }
            (Some(encoder), None) => Ok(encoder.ids(prompt)?),
            (None, _) => {
                let ids = prompt.split_whitespace().map(|id| Ok(id.parse()?)).collect::<Result<Vec<i64>>>();
                let model = self.options.model.name();
                ids.with_context(|| format!("`{prompt}`: {model} has no tokenizer, so prompts are token ids"))
            }
        }
    }
}

/// A setting that does not fit the model is most likely its directory's.
fn of_file(error: anyhow::Error, model: &Path) -> anyhow::Error {
    let setting =
        matches!(error.downcast_ref(), Some(peft_core::Error::Config { place, .. }) if place == "generation");
    if setting { error.context(model.join("generation_config.json").display().to_string()) } else { error }
}
