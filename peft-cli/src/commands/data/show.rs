//! `peft data show`: what of a file goes into a training, and how.

use super::rows::{Ink, Shown};
use super::summary::{Labels, Summary};
use crate::common;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::recipe::{Kind, Learn};
use crate::source::Source;
use anyhow::{Context, Result, ensure};
use clap::Args;
use peft_core::hub::{self, Head, TokenIds};
use peft_core::text::{ChatTemplate, Corpus, Dataset, Limits, Preparation, TextEncoder};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Shows rows of data as the model sees them: their tokens, which of them are learned, what is cut
#[derive(Debug, Args)]
#[command(after_help = "\
What is learned stands between ⟦ and ⟧, or is green on a terminal. A summary of all rows follows.

Examples:
  peft data show models/SmolLM2-135M-Instruct chats.jsonl
  peft data show models/SmolLM2-135M-Instruct chats.jsonl --length 512 --pack --rows 2 --ids
  peft data show models/all-MiniLM-L6-v2 reviews.csv --start 100 --rows 10
  peft data show models/SmolLM2-135M-Instruct chats.jsonl --rows 0 --json")]
pub struct Show {
    /// Model: a directory, or an id of the Hub (owner/name, owner/name@revision)
    model: Source,
    /// Data: .jsonl, .json, .csv, .tsv, or one text a line
    data: PathBuf,
    /// How many rows are shown; 0 for the summary alone
    #[arg(long, value_name = "N", default_value_t = 5)]
    rows: usize,
    /// The first row that is shown, from 1
    #[arg(long, value_name = "ROW", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    start: u64,
    /// Longest row in tokens; what is beyond is cut [default: the model's positions]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(i64).range(2..))]
    length: Option<i64>,
    /// What is learned [default: what the model is for]
    #[arg(long)]
    task: Option<Kind>,
    /// What of a chat is learned
    #[arg(long, default_value = "answers")]
    learn: Learn,
    /// Several whole texts in each row, up to the length
    #[arg(long)]
    pack: bool,
    /// Token ids as well
    #[arg(long)]
    ids: bool,
}

impl Show {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let dir = self.model.model(output)?;
        let dims = hub::architecture(&dir, Head::Stored)?.dims();
        let kind = common::kind(self.task, &self.model, &dir, dims.causal(), None)?;
        ensure!(!self.pack || kind == Kind::Causal, "--pack: is for a model of next tokens");
        let limits = Limits::of(&dims, &dir)?;
        let limits = limits.within(self.length.unwrap_or(i64::MAX), 0);
        let encoder = TextEncoder::open(&dir, limits)?;
        let summary = match kind {
            Kind::Causal => self.causal(&dir, &encoder, limits, output)?,
            Kind::Classes => {
                let data = Dataset::read(&self.data)?;
                output.warn(&data.warnings);
                let labels = data.labels();
                let encoded = encoder.encode(&data, &labels)?;
                let label = |row: usize| data.rows.get(row).map(|row| row.label.clone().into());
                self.labelled(&encoder, &encoded.ids, label, output)?;
                let counts = labels
                    .iter()
                    .map(|label| (label.clone(), data.rows.iter().filter(|row| row.label == *label).count()));
                let labels = Labels::Classes(counts.collect());
                Summary::new(&encoded.ids).cut(encoded.truncated).labelled(labels)
            }
            Kind::Regression => {
                let data = Dataset::numbers(&self.data)?;
                output.warn(&data.warnings);
                let encoded = encoder.encode_numbers(&data)?;
                let label = |row: usize| encoded.labels.get(row).map(|number| f64::from(*number).into());
                self.labelled(&encoder, &encoded.ids, label, output)?;
                let labels = Labels::numbers(&encoded.labels);
                Summary::new(&encoded.ids).cut(encoded.truncated).labelled(labels)
            }
        };
        output.result(&serde_json::json!({ "summary": summary }), |_| &summary)?;
        Ok(Outcome::Done)
    }

    fn causal(&self, dir: &Path, encoder: &TextEncoder, limits: Limits, output: &Output) -> Result<Summary> {
        let pack = self.pack.then(|| {
            let most = limits.positions.and_then(|most| usize::try_from(most).ok());
            most.filter(|_| limits.positions != Some(i64::MAX))
                .context("--pack: the model has any number of positions; say how long a row is with --length")
        });
        let corpus = Corpus::read(&self.data)?;
        let (ids, template) = (TokenIds::read(dir)?, ChatTemplate::open(dir)?);
        let how = Preparation { learn: self.learn.into(), pack: pack.transpose()? };
        let prepared = encoder.prepare(&corpus, &ids, template.as_ref(), how);
        let prepared = prepared.with_context(|| self.data.display().to_string())?;
        output.warn(&prepared.warnings);
        let data = prepared.sequences;
        output.note(format!("{}: {}", self.data.display(), corpus.form));
        for row in self.wanted(data.len())? {
            let shown = Shown::sequence(encoder, &data, row, &ids.eos, self.ids)?;
            output.result(&shown, |shown| shown.text(Ink::of_stdout()))?;
        }
        let mut learned = 0;
        for row in 0..data.len() {
            learned += data.counted(row)?.into_iter().filter(|counted| *counted).count();
        }
        let texts = data.documents.iter().map(Vec::len).sum();
        let summary = Summary::new(&data.ids).cut(data.truncated).learned(learned);
        Ok(summary.left_out(data.dropped).packed(how.pack.map(|length| (texts, length))))
    }

    fn labelled(
        &self,
        encoder: &TextEncoder,
        ids: &[Vec<i64>],
        label: impl Fn(usize) -> Option<Value>,
        output: &Output,
    ) -> Result<()> {
        for row in self.wanted(ids.len())? {
            let tokens = ids.get(row).context("a row that is not there")?;
            let shown = Shown::labelled(encoder, row, tokens, label(row), self.ids)?;
            output.result(&shown, |shown| shown.text(Ink::of_stdout()))?;
        }
        Ok(())
    }

    /// The rows that are shown, of so many.
    fn wanted(&self, all: usize) -> Result<std::ops::Range<usize>> {
        let first = usize::try_from(self.start - 1).unwrap_or(usize::MAX);
        ensure!(self.rows == 0 || first < all, "--start {}: there are {all} rows", self.start);
        Ok(first.min(all)..first.saturating_add(self.rows).min(all))
    }
}
