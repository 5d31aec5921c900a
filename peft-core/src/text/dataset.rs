//! What a classifier learns: texts, or pairs of them, with their labels.

use crate::error::{Error, Result};
use crate::text::label::Label;
use crate::text::records::{Record, records, unread};
use crate::text::source;
use crate::warning::Warning;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Names of two texts that are judged together, as GLUE's tasks have them.
pub const PAIRS: &[[&str; 2]] = &[
    ["sentence1", "sentence2"],
    ["question1", "question2"],
    ["premise", "hypothesis"],
    ["question", "sentence"],
    ["text", "text_pair"],
];

/// Names of a text alone.
const SINGLE: &[&str] = &["text", "sentence"];

/// Texts with their labels: names of classes, or numbers (`f32`) that are learned by regression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset<L = String> {
    pub path: PathBuf,
    pub rows: Vec<Row<L>>,
    /// Fields that were not read.
    pub warnings: Vec<Warning>,
}

/// One labelled text, or pair of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<L = String> {
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    pub label: L,
}

impl Dataset {
    /// Reads a file of JSON, or a table (`.csv`, `.tsv`). Labels are strings, booleans or integers, 1.0 for 1 too; blank
    /// lines are skipped.
    ///
    /// # Errors
    /// A file that is no text in UTF-8, with the command that converts it; every wrong row by its line: no JSON, no text,
    /// no label, one that is no class; a file without rows; labels that are all −1, as in GLUE's test sets.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let mut data = Self::labelled(path.as_ref())?;
        let hidden = data.rows.iter().filter(|row| row.label.hidden()).count();
        if hidden > 0 {
            let message = format!(
                "is -1 in {hidden} of {} rows: that is a class like the others here, the first one; where it stands for no \
                 label (SNLI), leave those rows out",
                data.rows.len()
            );
            data.warnings.push(Warning::new(data.path.display(), "label", message));
        }
        Ok(data)
    }

    /// The labels there are: integers by size, so that classes from 0 on keep their numbers, all others by the alphabet.
    pub fn labels(&self) -> Vec<String> {
        let set: BTreeSet<&String> = self.rows.iter().map(|r| &r.label).collect();
        let mut labels: Vec<String> = set.into_iter().cloned().collect();
        if labels.iter().all(|l| l.parse::<i64>().is_ok()) {
            labels.sort_by_key(|l| l.parse::<i64>().unwrap_or_default());
        }
        labels
    }
}

impl Dataset<f32> {
    /// Reads the same files with numbers for labels, which a model learns by regression.
    ///
    /// # Errors
    /// As [`Dataset::read`]; a label that is no number, or none that an `f32` has.
    ///
    /// ```no_run
    /// use peft_core::hub::{self, Head};
    /// use peft_core::tch::Device;
    /// use peft_core::text::Dataset;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let data = Dataset::numbers("stsb/train.jsonl")?; // sentence1, sentence2 and a label from 0 to 5
    /// let peft = hub::open("models/bert", Device::Cpu, Head::Fresh(1))?.peft;
    /// let encoded = hub::encoder("models/bert", &peft)?.encode_numbers(&data)?;
    /// let (batch, numbers) = encoded.batch(&[0, 1, 2], Device::Cpu)?; // numbers: f32, [3]
    /// # Ok(())
    /// # }
    /// ```
    pub fn numbers(path: impl AsRef<Path>) -> Result<Self> {
        Self::labelled(path.as_ref())
    }
}

#[expect(private_bounds, reason = "what a label can be is said by who reads them")]
impl<L: Label> Dataset<L> {
    fn labelled(path: &Path) -> Result<Self> {
        let text = source::read(path)?;
        let records = records(path, &text, r#"{"text": "...", "label": "..."}"#)?;
        let names = names(&records)?;
        let row = |record: &Record| -> Result<Row<L>> {
            let label = L::read(record)?;
            let (text, pair) = names.of(record)?;
            Ok(Row { text, pair, label })
        };
        let rows = records.iter().map(row).collect::<Result<Vec<_>>>()?;
        if rows.iter().all(|row| row.label.hidden()) {
            let message = "every `label` is -1, as in GLUE's test sets, where the labels are hidden: nothing to learn \
                           or to compare with (to predict, read the texts alone)";
            return Err(Error::format(path, message));
        }
        let warnings = unread(path, &records, &[&names.fields()[..], &["label"]].concat(), L::ROWS);
        Ok(Self { path: path.to_owned(), rows, warnings })
    }
}

/// Pairs of texts alone, to predict something of: a file of JSON with the fields of one of [`PAIRS`].
///
/// # Errors
/// As [`Dataset::read`]; labels need not be there.
pub fn pairs(path: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let text = source::read(path)?;
    let records = records(path, &text, r#"{"sentence1": "...", "sentence2": "..."}"#)?;
    let names = names(&records)?;
    let pair = |record: &Record| match names.of(record)? {
        (text, Some(pair)) => Ok((text, pair)),
        _ => Err(record.wrong(format!("is no pair of texts ({})", record.names()))),
    };
    records.iter().map(pair).collect()
}

/// The texts of rows that have one each.
pub(super) fn texts(records: &[Record]) -> Result<Vec<String>> {
    let names = names(records)?;
    let text = |record: &Record| match names.of(record)? {
        (text, None) => Ok(text),
        (_, Some(_)) => Err(record.wrong(format!("is a pair of texts and not one ({})", record.names()))),
    };
    records.iter().map(text).collect()
}

/// What a file calls its texts.
struct Names {
    text: &'static str,
    pair: Option<&'static str>,
}

/// The names in the first row: one file has one form.
fn names(records: &[Record]) -> Result<Names> {
    let Some(first) = records.first() else { return Ok(Names { text: "text", pair: None }) };
    if let Some([text, pair]) = PAIRS.iter().find(|names| names.iter().all(|n| first.has(n))) {
        return Ok(Names { text, pair: Some(pair) });
    }
    match SINGLE.iter().find(|name| first.has(name)) {
        Some(text) => Ok(Names { text, pair: None }),
        None => Err(first.wrong(format!("no `text`, `sentence` or pair of texts ({})", first.names()))),
    }
}

impl Names {
    fn fields(&self) -> Vec<&'static str> {
        std::iter::once(self.text).chain(self.pair).collect()
    }

    fn of(&self, record: &Record) -> Result<(String, Option<String>)> {
        let pair = self.pair.map(|pair| record.text(pair).map(str::to_owned)).transpose()?;
        Ok((record.text(self.text)?.to_owned(), pair))
    }
}
