//! `peft recommend`.

use crate::common::{Bytes, table};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::Source;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use peft_core::TaskType;
use peft_core::estimate::{Blueprint, Need, Recommendation, Setup, Storage, human_bytes, recommend};
use peft_core::methods::catalogue::Entry;
use peft_core::report::commas;
use serde::Serialize;
use std::path::Path;

/// Recommends a method for a model, a device and data
#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Examples:\n  peft recommend 7B --gpu 24GB --examples 5000\n  peft recommend models/all-MiniLM-L6-v2 --gpu \
                  8GB --task classification --examples 2000"
)]
pub struct Recommend {
    /// Model: a directory, or an id of the Hub (owner/name, owner/name@revision), of which config.json is enough; or a
    /// size: 7B, 350M
    model: String,
    /// Memory of the device, 24GB or 16GiB
    #[arg(long, value_name = "MEMORY", default_value = "24GB")]
    gpu: Bytes,
    /// Share of it that is kept for activations and buffers
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    reserve: f64,
    /// What for [default: generation with a causal model or a size, else classification]
    #[arg(long)]
    task: Option<Task>,
    /// Training examples
    #[arg(long, value_name = "ROWS", default_value_t = 10_000)]
    examples: i64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Task {
    Generation,
    Classification,
    Answering,
}

impl From<Task> for TaskType {
    fn from(task: Task) -> Self {
        match task {
            Task::Generation => TaskType::CausalLm,
            Task::Classification => TaskType::SeqCls,
            Task::Answering => TaskType::QuestionAns,
        }
    }
}

/// The model of a size, or of whatever else names one.
pub(super) fn blueprint(model: &str, output: &Output) -> Result<Blueprint> {
    let upper = model.to_ascii_uppercase();
    let unit =
        [("M", 1e6), ("B", 1e9)].into_iter().find_map(|(unit, size)| Some((upper.strip_suffix(unit)?, size)));
    match unit.and_then(|(number, size)| Some(number.parse::<f64>().ok()? * size)) {
        Some(size) if !Path::new(model).is_dir() => Ok(Blueprint::about(size as i64)?),
        _ => {
            let dir = model.parse::<Source>()?.config(output)?;
            Blueprint::open(dir).context("a model is a directory with a config.json, or a size: 7B, 350M")
        }
    }
}

/// The methods to compare: name, how it is called, fields.
const COMPARED: &[(&str, &str, &str)] = &[
    ("prompt_tuning", "prompt tuning, 20 tokens", r#"{"num_virtual_tokens": 20}"#),
    ("ia3", "(IA)³", "{}"),
    ("lora", "LoRA, r = 8", "{}"),
    ("dora", "DoRA, r = 8", "{}"),
    ("prefix_tuning", "prefix tuning, 20 tokens", r#"{"num_virtual_tokens": 20}"#),
    ("bottleneck", "bottleneck adapters, 64 wide", "{}"),
    ("lora", "LoRA, r = 16, all linear layers", r#"{"r": 16, "target_modules": "all-linear"}"#),
    ("full", "full fine-tuning, of a copy", "{}"),
];

#[derive(Debug, Serialize)]
struct Compared {
    method: &'static str,
    trainable: i64,
    all: i64,
    percent: f64,
    overhead_bytes: i64,
    bytes_over_16_bits: i64,
    bytes_over_4_bits: i64,
}

#[derive(Debug, Serialize)]
struct Advice {
    method: String,
    base: String,
    fits: bool,
    bytes: i64,
    free_bytes: i64,
    why: Vec<String>,
    #[serde(skip)]
    text: String,
}

impl From<Recommendation> for Advice {
    fn from(advice: Recommendation) -> Self {
        Self {
            method: advice.choice.name(),
            base: advice.setup.base.to_string(),
            fits: advice.fits,
            bytes: advice.estimate.memory.total(),
            free_bytes: advice.free,
            text: advice.to_string(),
            why: advice.why,
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    methods: Vec<Compared>,
    advice: Advice,
}

impl Recommend {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let model = blueprint(&self.model, output).with_context(|| format!("model `{}`", self.model))?;
        let usual = if model.outline().dims.causal() { Task::Generation } else { Task::Classification };
        let task: TaskType = self.task.unwrap_or(usual).into();
        let need = Need { device_bytes: self.gpu.0, reserve: self.reserve, task, examples: self.examples };
        let advice = recommend(&model, &need)?;
        let packed = model.weights(&Storage::qlora())?;
        let compare = |(name, method, fields): &(&str, &'static str, &str)| {
            let mut fields: serde_json::Map<_, _> = serde_json::from_str(fields)?;
            fields.insert("task_type".into(), serde_json::to_value(task)?);
            let config = peft_core::methods::by_name(Entry::named(name)?.name, fields)?;
            let estimate = model.estimate(config, &Setup::default())?;
            let (report, memory) = (estimate.report, estimate.memory);
            Ok(Compared {
                method,
                trainable: report.trainable,
                all: report.all,
                percent: report.percent(),
                overhead_bytes: memory.overhead(),
                bytes_over_16_bits: memory.total(),
                bytes_over_4_bits: packed + memory.overhead(),
            })
        };
        let methods = COMPARED.iter().map(compare).collect::<Result<Vec<_>>>()?;
        let report = Report { model: model.to_string(), methods, advice: advice.into() };
        output.result(&report, Report::text)?;
        Ok(Outcome::Done)
    }
}

impl Report {
    fn text(&self) -> String {
        let mut table =
            table(["method", "trained", "%", "beside the base", "over 16 bits", "over 4 bits"], 1);
        for c in &self.methods {
            let [beside, dense, packed] =
                [c.overhead_bytes, c.bytes_over_16_bits, c.bytes_over_4_bits].map(human_bytes);
            let percent = format!("{:.4}", c.percent);
            table.add_row([c.method.to_owned(), commas(c.trainable), percent, beside, dense, packed]);
        }
        let fits = if self.advice.fits { "It fits" } else { "It does not fit" };
        let text = self.advice.text.trim_end();
        format!("{}\n{table}\nActivations are not counted; `peft plan` does.\n\n{fits}: {text}", self.model)
    }
}
