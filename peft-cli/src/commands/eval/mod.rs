//! `peft eval`.

mod measured;
mod watched;

use crate::common::{self, Adapters, Machine, Opened};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::recipe::{Kind, Learn};
use crate::source::Source;
use anyhow::{Result, bail, ensure};
use clap::Args;
use measured::{Measured, compared};
use peft_core::Peft;
use peft_core::hub::TokenIds;
use peft_core::text::{ChatTemplate, Corpus, Dataset, Limits, Preparation, TextEncoder};
use peft_core::train::{Task, evaluate};
use std::path::{Path, PathBuf};
use watched::Watched;

/// Measures loss and accuracy of a model with adapters on data
#[derive(Debug, Args)]
#[command(after_help = "\
Of a causal model: loss, perplexity, and how many tokens are the likeliest. Of a classifier: loss, accuracy, macro F1, and
how often a class was taken for another. Of numbers: squared and absolute error, and Pearson's correlation. Several
adapters are compared.

Examples:
  peft eval models/SmolLM2 test.jsonl --adapter runs/mine
  peft eval models/SmolLM2 test.jsonl --adapter runs/lora --adapter runs/dora --base
  peft eval models/all-MiniLM-L6-v2 test.jsonl --adapter runs/sections --json")]
pub struct Eval {
    /// Model: a directory, or an id of the Hub (owner/name, owner/name@revision)
    model: Source,
    /// Data: .jsonl, .json, .csv, .tsv, or one text a line
    data: PathBuf,
    #[command(flatten)]
    adapters: Adapters,
    /// The base without adapters as well
    #[arg(long)]
    base: bool,
    /// Adapters that are active together, the innermost first; `-` for none [default: each by itself]
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        allow_hyphen_values = true,
        conflicts_with = "base"
    )]
    active: Vec<String>,
    /// What was learned [default: what the model is for]
    #[arg(long)]
    task: Option<Kind>,
    /// What of a chat counts
    #[arg(long, default_value = "answers")]
    learn: Learn,
    /// Rows that are computed at once
    #[arg(long, value_name = "ROWS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Longest row in tokens; what is beyond is cut [default: the model's positions]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(i64).range(2..))]
    length: Option<i64>,
    #[command(flatten)]
    machine: Machine,
}

impl Eval {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let device = self.machine.device()?;
        let Opened { peft, dir, names } = common::open(&self.model, &self.adapters, device, output)?;
        self.machine.threads(&peft)?;
        ensure!(TextEncoder::exists(&dir), "{}: there is no tokenizer", self.model.name());
        let mut all = Vec::new();
        for active in self.active(&names) {
            let classes = peft.classes(&active)?;
            let (task, classes) = self.task(&peft, &dir, &active, classes, output)?;
            let view = peft.view(&active)?;
            let task = Watched::new(task, active.join(" + "), output.quiet);
            let found = evaluate(view.as_ref(), &task, usize::from(self.batch), device)?;
            all.push(Measured::new(&active, task.rows(), &classes, found));
        }
        match all.as_slice() {
            all if output.json => all.iter().try_for_each(|m| output.result(m, Measured::text))?,
            [one] => output.result(one, Measured::text)?,
            all => output.result(&all, |all| compared(all))?,
        }
        Ok(Outcome::Done)
    }

    /// What is measured one after the other: the base where it is asked for or there is nothing else, and the adapters.
    fn active<'a>(&'a self, names: &'a [String]) -> Vec<Vec<&'a str>> {
        match self.active.as_slice() {
            [] => {
                let base = (self.base || names.is_empty()).then(Vec::new);
                base.into_iter().chain(names.iter().map(|name| vec![name.as_str()])).collect()
            }
            [none] if none == "-" => vec![Vec::new()],
            named => vec![named.iter().map(String::as_str).collect()],
        }
    }

    /// The data as these adapters see it, and the names of their classes.
    fn task(
        &self,
        peft: &Peft,
        dir: &Path,
        active: &[&str],
        classes: &[String],
        output: &Output,
    ) -> Result<(Box<dyn Task>, Vec<String>)> {
        let dims = &peft.outline().dims;
        let kind = common::kind(self.task, &self.model, dir, dims.causal(), peft.number_of_classes())?;
        let limits =
            Limits::of(dims, dir)?.within(self.length.unwrap_or(i64::MAX), virtual_tokens(peft, active)?);
        let encoder = TextEncoder::open(dir, limits)?;
        let (task, truncated, classes): (Box<dyn Task>, _, _) = match kind {
            Kind::Causal => {
                let how = Preparation { learn: self.learn.into(), pack: None };
                let (ids, template) = (TokenIds::read(dir)?, ChatTemplate::open(dir)?);
                let prepared = encoder.prepare(&Corpus::read(&self.data)?, &ids, template.as_ref(), how)?;
                output.warn(prepared.warnings); // of what is cut, too
                (Box::new(prepared.sequences), 0, Vec::new())
            }
            Kind::Classes => {
                let data = Dataset::read(&self.data)?;
                output.warn(&data.warnings);
                let known = self.known(&data.labels(), classes)?;
                let encoded = encoder.encode(&data, &known)?;
                let truncated = encoded.truncated;
                (Box::new(encoded), truncated, if classes.is_empty() { known } else { classes.to_vec() })
            }
            Kind::Regression => {
                let data = Dataset::numbers(&self.data)?;
                output.warn(&data.warnings);
                let encoded = encoder.encode_numbers(&data)?;
                let truncated = encoded.truncated;
                (Box::new(encoded), truncated, Vec::new())
            }
        };
        if truncated > 0 {
            let (rows, most) = (task.rows(), encoder.longest());
            let place = self.data.display();
            output.warn([format!("{place}: {truncated} of {rows} rows are longer than {most} tokens: cut")]);
        }
        Ok((task, classes))
    }

    /// The labels of the classes, in the order of the logits.
    fn known(&self, labels: &[String], classes: &[String]) -> Result<Vec<String>> {
        let numbers = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>();
        // What transformers calls classes that nobody has named: their labels are numbers.
        let unnamed = classes.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"));
        Ok(match classes {
            [] if labels == numbers(labels.len()) => labels.to_vec(),
            [] => bail!(
                "{}: labels are {}, and neither the adapter nor the model names its classes",
                self.data.display(),
                labels.join(", ")
            ),
            all if unnamed && !labels.iter().any(|label| all.contains(label)) => numbers(all.len()),
            named => named.to_vec(),
        })
    }
}

/// Rows that the adapters put before the words'.
fn virtual_tokens(peft: &Peft, active: &[&str]) -> Result<i64> {
    let mut all = 0i64;
    for name in active {
        let config = peft.adapter_config(name)?;
        let tokens = config.and_then(|json| json.get("num_virtual_tokens")?.as_i64()).unwrap_or(0);
        all = all.saturating_add(tokens);
    }
    Ok(all)
}
