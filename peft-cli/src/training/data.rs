//! The rows of a training, and those it is evaluated on.

use crate::output::Output;
use crate::recipe::{Kind, Settings};
use anyhow::{Context, Result, bail, ensure};
use peft_core::hub::TokenIds;
use peft_core::text::{ChatTemplate, Corpus, Dataset, TextEncoder};
use peft_core::train::{Shuffle, Task};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;

/// What was read, before it is encoded.
#[derive(Debug)]
pub struct Read {
    rows: Rows,
    /// Which rows of the file are trained on, from 1.
    numbers: Vec<usize>,
}

#[derive(Debug)]
enum Rows {
    Causal { train: Corpus, eval: Option<Corpus> },
    Classes { train: Dataset, eval: Option<Dataset>, labels: Vec<String> },
}

/// Rows that are ready.
#[derive(Debug)]
pub struct Data {
    pub train: Box<dyn Task>,
    pub eval: Option<Box<dyn Task>>,
    pub about: About,
    /// For each row to train on, which rows of the file it is made of, from 1.
    pub origin: Vec<Vec<usize>>,
}

/// What there is to say of the rows.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct About {
    pub rows: usize,
    pub eval_rows: usize,
    /// Rows that were cut to the length.
    pub truncated: usize,
    /// Rows of which the cut leaves nothing to learn.
    pub dropped: usize,
    pub tokens: usize,
}

impl Read {
    /// Reads the files of a recipe. What of them is passed over is said.
    pub fn new(settings: &Settings, kind: Kind, output: &Output) -> Result<Self> {
        let eval_path = settings.eval_data.as_deref();
        match kind {
            Kind::Causal => {
                let mut train = Corpus::read(&settings.data)?;
                output.warn(&train.warnings);
                let (out, numbers) = held_out(&mut train.rows, settings)?;
                let eval = match eval_path {
                    Some(path) => Some(Corpus::read(path)?),
                    None => out.map(|rows| Corpus { rows, ..train.clone() }),
                };
                Ok(Self { rows: Rows::Causal { train, eval }, numbers })
            }
            Kind::Classes => {
                let mut train = Dataset::read(&settings.data)?;
                output.warn(&train.warnings);
                let labels = settings.labels.clone().unwrap_or_else(|| train.labels());
                let (out, numbers) = held_out(&mut train.rows, settings)?;
                let eval = match eval_path {
                    Some(path) => Some(Dataset::read(path)?),
                    None => out.map(|rows| Dataset { rows, ..train.clone() }),
                };
                Ok(Self { rows: Rows::Classes { train, eval, labels }, numbers })
            }
            Kind::Regression => bail!("task: regression is not there yet"),
        }
    }

    /// Names of the classes, if there are classes.
    pub fn labels(&self) -> &[String] {
        match &self.rows {
            Rows::Classes { labels, .. } => labels,
            Rows::Causal { .. } => &[],
        }
    }

    /// The rows as token ids; `model` is the model's directory.
    pub fn encode(
        self,
        settings: &Settings,
        model: &Path,
        encoder: &TextEncoder,
        output: &Output,
    ) -> Result<Data> {
        let numbers = self.numbers;
        let number = |row: usize| numbers.get(row).copied().unwrap_or_default();
        match self.rows {
            Rows::Causal { train, eval } => {
                let end = TokenIds::read(model)?.eos.first().copied();
                if end.is_none() {
                    output.warn([format!(
                        "{}: names no end of a text (eos_token_id): none is learned",
                        model.display()
                    )]);
                }
                let template = ChatTemplate::open(model)?;
                let encode = |corpus: &Corpus| {
                    let rows = encoder.examples(&corpus.rows, end, template.as_ref(), settings.learn.into());
                    rows.with_context(|| corpus.path.display().to_string())
                };
                let (train, eval) = (encode(&train)?, eval.as_ref().map(encode).transpose()?);
                let about = About {
                    rows: train.len(),
                    eval_rows: eval.as_ref().map_or(0, |rows| rows.len()),
                    truncated: train.truncated,
                    dropped: train.dropped,
                    tokens: train.ids.iter().map(Vec::len).sum(),
                };
                let eval = eval.map(|rows| Box::new(rows) as Box<dyn Task>);
                let origin = train.documents.iter();
                let origin = origin.map(|all| all.iter().map(|d| number(d.example)).collect()).collect();
                Ok(Data { train: Box::new(train), eval, about, origin })
            }
            Rows::Classes { train, eval, labels } => {
                let encode = |data: &Dataset| encoder.encode(data, &labels);
                let (train, eval) = (encode(&train)?, eval.as_ref().map(encode).transpose()?);
                let about = About {
                    rows: train.len(),
                    eval_rows: eval.as_ref().map_or(0, |rows| rows.len()),
                    truncated: train.truncated,
                    dropped: 0,
                    tokens: train.ids.iter().map(Vec::len).sum(),
                };
                let eval = eval.map(|rows| Box::new(rows) as Box<dyn Task>);
                let origin = (0..train.len()).map(|row| vec![number(row)]).collect();
                Ok(Data { train: Box::new(train), eval, about, origin })
            }
        }
    }
}

/// Takes the share that is to be evaluated on out of the rows, in an order that is always the same, so that seeds compare.
/// What is taken, and the numbers of the rows that stay, from 1.
fn held_out<T: Clone>(rows: &mut Vec<T>, settings: &Settings) -> Result<(Option<Vec<T>>, Vec<usize>)> {
    if settings.eval_share == 0.0 {
        return Ok((None, (1..=rows.len()).collect()));
    }
    let count = (rows.len() as f64 * settings.eval_share).round() as usize;
    ensure!(
        count > 0 && count < rows.len(),
        "eval_share: {} of {} rows is {count}, which leaves nothing to {}",
        settings.eval_share,
        rows.len(),
        if count == 0 { "evaluate on" } else { "train on" }
    );
    // An epoch that no training comes to: its order is nobody else's.
    let mut order = Shuffle::new(rows.len(), 0).epoch(u64::MAX);
    let mut rest = order.split_off(count);
    order.sort_unstable();
    rest.sort_unstable();
    let pick = |at: &[usize]| -> Vec<T> { at.iter().filter_map(|row| rows.get(*row).cloned()).collect() };
    let (out, kept) = (pick(&order), pick(&rest));
    *rows = kept;
    Ok((Some(out), rest.into_iter().map(|row| row + 1).collect()))
}

/// The SHA-256 of the files that a training reads its rows from: others would be another training.
pub fn digest(settings: &Settings) -> Result<String> {
    let mut hash = Sha256::new();
    let files = std::iter::once(&settings.data).chain(&settings.eval_data);
    for path in files {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        std::io::copy(&mut file, &mut hash).with_context(|| path.display().to_string())?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
