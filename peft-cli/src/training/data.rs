//! The rows of a training, and those it is evaluated on.

use crate::recipe::{Kind, Settings};
use anyhow::{Context, Result, ensure};
use peft_core::Warning;
use peft_core::hub::TokenIds;
use peft_core::text::{ChatTemplate, Corpus, Dataset, Encoded, Form, Preparation, TextEncoder};
use peft_core::train::{Shuffle, Task};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;

/// What was read, before it is encoded.
#[derive(Debug)]
pub struct Read {
    rows: Rows,
    /// Which rows of the file are trained on, from 1.
    numbers: Vec<usize>,
    warnings: Vec<Warning>,
}

#[derive(Debug)]
enum Rows {
    Causal(Split<Corpus>),
    Classes(Split<Dataset>, Vec<String>),
    Numbers(Split<Dataset<f32>>),
}

/// Rows to train on, and rows to evaluate on.
#[derive(Debug)]
struct Split<T> {
    train: T,
    eval: Option<T>,
}

/// Rows that are ready.
#[derive(Debug)]
pub struct Data {
    pub train: Box<dyn Task>,
    pub eval: Option<Box<dyn Task>>,
    pub about: About,
    /// For each row to train on, which rows of the file it is made of, from 1.
    pub origin: Vec<Vec<usize>>,
    /// What texts to learn are, in their file.
    pub form: Option<Form>,
    /// What was passed over in the files, and what else should be said of the rows.
    pub warnings: Vec<Warning>,
}

/// What there is to say of the rows that are trained on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct About {
    pub rows: usize,
    pub eval_rows: usize,
    /// Rows that were cut to the length.
    pub truncated: usize,
    /// Rows of which the cut leaves nothing to learn.
    pub dropped: usize,
    pub tokens: usize,
    /// Tokens of the longest row.
    pub longest: usize,
}

impl Read {
    /// Reads the files of a recipe.
    ///
    /// # Errors
    /// Files that are missing or wrong, by row; a share to evaluate on that leaves nothing.
    pub fn new(settings: &Settings, kind: Kind) -> Result<Self> {
        let mut warned = Vec::new();
        let (rows, numbers) = match kind {
            Kind::Causal => {
                let (split, numbers) = split(settings, |path| Corpus::read(path), |corpus| &mut corpus.rows)?;
                (Rows::Causal(split), numbers)
            }
            Kind::Classes => {
                let (split, numbers) = split(settings, |path| Dataset::read(path), |data| &mut data.rows)?;
                warned = warnings(&split, |data| &data.warnings);
                let labels = settings.labels.clone().unwrap_or_else(|| split.train.labels());
                (Rows::Classes(split, labels), numbers)
            }
            Kind::Regression => {
                let (split, numbers) = split(settings, |path| Dataset::numbers(path), |data| &mut data.rows)?;
                warned = warnings(&split, |data| &data.warnings);
                (Rows::Numbers(split), numbers)
            }
        };
        Ok(Self { rows, numbers, warnings: warned })
    }

    /// Names of the classes, if there are classes.
    pub fn labels(&self) -> Option<&[String]> {
        match &self.rows {
            Rows::Classes(_, labels) => Some(labels),
            Rows::Causal(_) | Rows::Numbers(_) => None,
        }
    }

    /// The rows as token ids; `model` is the model's directory.
    ///
    /// # Errors
    /// What the tokenizer, the chat template and the labels say.
    pub fn encode(self, settings: &Settings, model: &Path, encoder: &TextEncoder) -> Result<Data> {
        let Self { rows, numbers, warnings } = self;
        let data = match rows {
            Rows::Causal(split) => {
                let (ids, template) = (TokenIds::read(model)?, ChatTemplate::open(model)?);
                let pack = settings.pack.then(|| encoder.longest());
                let how = Preparation { learn: settings.learn.into(), pack };
                let form = Some(split.train.form);
                let (train, eval) = split.each(|corpus| {
                    let prepared = encoder.prepare(corpus, &ids, template.as_ref(), how);
                    prepared.with_context(|| corpus.path.display().to_string())
                })?;
                let warnings =
                    std::iter::once(&train).chain(&eval).flat_map(|p| p.warnings.clone()).collect();
                let (train, eval) = (train.sequences, eval.map(|p| p.sequences));
                let number = |example: usize| numbers.get(example).copied().unwrap_or_default();
                let documents = train.documents.iter();
                let origin = documents.map(|all| all.iter().map(|d| number(d.example)).collect()).collect();
                let (truncated, dropped) = (train.truncated, train.dropped);
                let data = Data::new(train, eval, origin);
                return Ok(Data {
                    form,
                    about: About { truncated, dropped, ..data.about.clone() },
                    warnings,
                    ..data
                });
            }
            Rows::Classes(split, labels) => {
                labelled(split.each(|data| Ok(encoder.encode(data, &labels)?))?, numbers)
            }
            Rows::Numbers(split) => labelled(split.each(|data| Ok(encoder.encode_numbers(data)?))?, numbers),
        };
        Ok(Data { warnings, ..data })
    }
}

impl<T> Split<T> {
    fn each<U>(&self, encode: impl Fn(&T) -> Result<U>) -> Result<(U, Option<U>)> {
        Ok((encode(&self.train)?, self.eval.as_ref().map(encode).transpose()?))
    }
}

impl Data {
    fn new(train: impl Task + 'static, eval: Option<impl Task + 'static>, origin: Vec<Vec<usize>>) -> Self {
        let lengths = || (0..train.rows()).map(|row| train.length(row));
        let about = About {
            rows: train.rows(),
            eval_rows: eval.as_ref().map_or(0, Task::rows),
            truncated: 0,
            dropped: 0,
            tokens: lengths().sum(),
            longest: lengths().max().unwrap_or_default(),
        };
        let eval = eval.map(|rows| Box::new(rows) as Box<dyn Task>);
        Self { train: Box::new(train), eval, about, origin, form: None, warnings: Vec::new() }
    }
}

fn labelled<L>((train, eval): (Encoded<L>, Option<Encoded<L>>), numbers: Vec<usize>) -> Data
where
    Encoded<L>: Task + 'static,
{
    let truncated = train.truncated;
    let data = Data::new(train, eval, numbers.into_iter().map(|number| vec![number]).collect());
    Data { about: About { truncated, ..data.about.clone() }, ..data }
}

fn warnings<T>(split: &Split<T>, of: impl Fn(&T) -> &Vec<Warning>) -> Vec<Warning> {
    std::iter::once(&split.train).chain(&split.eval).flat_map(of).cloned().collect()
}

/// Reads the rows; the numbers of those that are trained on, from 1.
fn split<T: Clone, R: Clone>(
    settings: &Settings,
    read: impl Fn(&Path) -> peft_core::Result<T>,
    rows: impl Fn(&mut T) -> &mut Vec<R>,
) -> Result<(Split<T>, Vec<usize>)> {
    let mut train = read(&settings.data)?;
    if let Some(path) = &settings.eval_data {
        let numbers = (1..=rows(&mut train).len()).collect();
        return Ok((Split { train, eval: Some(read(path)?) }, numbers));
    }
    let all = rows(&mut train);
    let [out, kept] = held_out(all.len(), settings.eval_share)?;
    let numbers = kept.iter().map(|row| row + 1).collect();
    if out.is_empty() {
        return Ok((Split { train, eval: None }, numbers));
    }
    let pick = |at: &[usize]| -> Vec<R> { at.iter().filter_map(|row| all.get(*row).cloned()).collect() };
    let (out, kept) = (pick(&out), pick(&kept));
    let mut eval = train.clone();
    (*rows(&mut eval), *rows(&mut train)) = (out, kept);
    Ok((Split { train, eval: Some(eval) }, numbers))
}

/// Which rows are held out, in an order that is always the same, so that seeds compare; and which are not.
fn held_out(rows: usize, share: f64) -> Result<[Vec<usize>; 2]> {
    if share == 0.0 {
        return Ok([Vec::new(), (0..rows).collect()]);
    }
    let count = (rows as f64 * share).round() as usize;
    let nothing = if count == 0 { "evaluate on" } else { "train on" };
    ensure!(
        count > 0 && count < rows,
        "eval_share: {share} of {rows} rows is {count}, which leaves nothing to {nothing}"
    );
    // An epoch that no training comes to: its order is nobody else's.
    let mut out = Shuffle::new(rows, 0).epoch(u64::MAX);
    let mut kept = out.split_off(count);
    out.sort_unstable();
    kept.sort_unstable();
    Ok([out, kept])
}

/// The SHA-256 of the files that a training reads its rows from: others would be another training.
pub fn digest(settings: &Settings) -> Result<String> {
    let mut hash = Sha256::new();
    for path in std::iter::once(&settings.data).chain(&settings.eval_data) {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        std::io::copy(&mut file, &mut hash).with_context(|| path.display().to_string())?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
