//! `peft eval`.

use crate::common::{self, Adapters, Machine, Opened};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::Source;
use anyhow::{Result, bail, ensure};
use clap::Args;
use peft_core::hub::TokenIds;
use peft_core::text::{ChatTemplate, Corpus, Dataset, Limits, Preparation, TextEncoder};
use peft_core::train::{Evaluation, Task, evaluate};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Measures loss and accuracy of a model with adapters on data
#[derive(Debug, Args)]
#[command(
    after_help = "Of a causal model: loss, perplexity, and how many tokens are the likeliest. Of a classifier: loss, \
                        accuracy, macro F1, and how often a class was taken for another.\n\nExamples:\n  peft eval \
                        models/SmolLM2 test.jsonl --adapter runs/mine\n  peft eval models/all-MiniLM-L6-v2 test.jsonl \
                        --adapter runs/sections --json"
)]
pub struct Eval {
    /// The model
    model: Source,
    /// Texts, chats or labelled texts, in one of the forms that `peft train` reads
    data: PathBuf,
    #[command(flatten)]
    adapters: Adapters,
    /// The adapters that are active, the innermost first; `-` for none [default: all there are]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', allow_hyphen_values = true)]
    active: Vec<String>,
    /// Rows that are computed at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Tokens of a row at most; more are cut [default: what the model has positions for, at most 512]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    length: Option<i64>,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Measured {
    rows: usize,
    loss: f64,
    counted: f64,
    #[serde(flatten)]
    metrics: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    confusion: Vec<Confused>,
}

#[derive(Debug, Serialize)]
struct Confused {
    expected: String,
    found: String,
    count: u64,
}

/// Tokens of a row where nobody says.
const LENGTH: i64 = 512;

impl Eval {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let device = self.machine.device()?;
        let Opened { peft, dir, names } = common::open(&self.model, &self.adapters, device, output)?;
        self.machine.threads(&peft)?;
        let active: Vec<&str> = match self.active.as_slice() {
            [] => names.iter().map(String::as_str).collect(),
            [none] if none == "-" => Vec::new(),
            named => named.iter().map(String::as_str).collect(),
        };
        let dims = &peft.outline().dims;
        let limits = Limits::of(dims, &dir)?.within(self.length.unwrap_or(LENGTH), 0);
        ensure!(TextEncoder::exists(&dir), "{}: there is no tokenizer", self.model.name());
        let encoder = TextEncoder::open(&dir, limits)?;
        let classes = peft.classes(&active)?.to_vec();
        let task: Box<dyn Task> = if dims.causal() {
            self.texts(&dir, &encoder, output)?
        } else {
            self.labelled(&encoder, &classes, output)?
        };
        let view = peft.view(&active)?;
        let Evaluation { loss, counted, metrics, confusion } =
            evaluate(view.as_ref(), task.as_ref(), usize::from(self.batch), device)?;
        let name = |class: i64| {
            let named = usize::try_from(class).ok().and_then(|i| classes.get(i).cloned());
            named.unwrap_or_else(|| class.to_string())
        };
        let confusion = confusion.into_iter().map(|((expected, found), count)| Confused {
            expected: name(expected),
            found: name(found),
            count,
        });
        let confusion = confusion.collect();
        output.result(&Measured { rows: task.rows(), loss, counted, metrics, confusion }, Measured::text)?;
        Ok(Outcome::Done)
    }

    fn texts(&self, dir: &Path, encoder: &TextEncoder, output: &Output) -> Result<Box<dyn Task>> {
        let corpus = Corpus::read(&self.data)?;
        let template = ChatTemplate::open(dir)?;
        let prepared =
            encoder.prepare(&corpus, &TokenIds::read(dir)?, template.as_ref(), Preparation::default())?;
        output.warn(prepared.warnings);
        Ok(Box::new(prepared.sequences))
    }

    fn labelled(&self, encoder: &TextEncoder, classes: &[String], output: &Output) -> Result<Box<dyn Task>> {
        let data = Dataset::read(&self.data)?;
        output.warn(&data.warnings);
        let labels = data.labels();
        let numbers = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>();
        // What transformers calls classes that nobody has named: their labels are numbers.
        let unnamed = classes.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"));
        let known = match classes {
            [] if labels == numbers(labels.len()) => labels,
            [] => bail!(
                "{}: labels are {}, and neither the adapter nor the model names its classes",
                self.data.display(),
                labels.join(", ")
            ),
            all if unnamed && !labels.iter().any(|label| all.contains(label)) => numbers(all.len()),
            named => named.to_vec(),
        };
        Ok(Box::new(encoder.encode(&data, &known)?))
    }
}

impl Measured {
    fn text(&self) -> String {
        let mut text = format!("{} rows, loss {:.4}", self.rows, self.loss);
        for (name, value) in &self.metrics {
            let _ = write!(text, "\n  {name:<15} {value:.4}");
        }
        for Confused { expected, found, count } in &self.confusion {
            let _ = write!(text, "\n  {expected} taken for {found}: {count}");
        }
        text
    }
}
