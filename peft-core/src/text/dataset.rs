//! What a classifier learns: texts, or pairs of them, with their labels.

use crate::error::{Error, Result};
use crate::text::records::{Record, brief, records, unread};
use crate::text::source;
use crate::warning::Warning;
use serde_json::Value;
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

/// Texts with their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub path: PathBuf,
    pub rows: Vec<Row>,
    /// Fields that were not read.
    pub warnings: Vec<Warning>,
}

/// One labelled text, or pair of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    pub label: String,
}

impl Dataset {
    /// Reads a file of JSON. Labels are strings, booleans or integers, 1.0 for 1 too; blank lines are skipped.
    ///
    /// # Errors
    /// A file that is no text in UTF-8, with the command that converts it; every wrong row by its line: no JSON, no text,
    /// no label, one that is no class; a file without rows; labels that are all −1, as in GLUE's test sets.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = source::read(path)?;
        let records = records(path, &text, r#"{"text": "...", "label": "..."}"#)?;
        let names = names(&records)?;
        let row = |record: &Record| -> Result<Row> {
            let label = label(record)?;
            let (text, pair) = names.of(record)?;
            Ok(Row { text, pair, label })
        };
        let rows = records.iter().map(row).collect::<Result<Vec<_>>>()?;
        if rows.iter().all(|row| row.label == "-1") {
            let message = "every `label` is -1, as in GLUE's test sets, where the classes are hidden: nothing to learn \
                           or to compare with (to predict, read the texts alone)";
            return Err(Error::format(path, message));
        }
        let what = "labelled texts";
        let mut warnings = unread(path, &records, &[&names.fields()[..], &["label"]].concat(), what);
        let hidden = rows.iter().filter(|row| row.label == "-1").count();
        if hidden > 0 {
            let message = format!(
                "is -1 in {hidden} of {} rows: that is a class like the others here, the first one; where it stands for no \
                 label (SNLI), leave those rows out",
                rows.len()
            );
            warnings.push(Warning::new(path.display(), "label", message));
        }
        Ok(Self { path: path.to_owned(), rows, warnings })
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

fn label(record: &Record) -> Result<String> {
    let wrong = |value: &Value, why: &str| {
        Err(record
            .wrong(format!("`label` is {}, expected a string or an integer{why}", brief(&value.to_string()))))
    };
    match record.get("label") {
        None => Err(record.wrong(format!("no `label` ({})", record.names()))),
        Some(Value::String(label)) => Ok(label.clone()),
        Some(Value::Bool(label)) => Ok(label.to_string()),
        Some(value @ Value::Number(number)) => match number.as_f64() {
            _ if number.is_i64() || number.is_u64() => Ok(number.to_string()),
            // Tables with a gap somewhere are written with floats.
            Some(x) if x.fract() == 0.0 && x.abs() < 1e15 => Ok((x as i64).to_string()),
            _ => wrong(value, ": a score and no class, and regression has no head here"),
        },
        Some(value @ Value::Array(_)) => wrong(value, ": several classes a text are not supported"),
        Some(value) => wrong(value, ""),
    }
}
