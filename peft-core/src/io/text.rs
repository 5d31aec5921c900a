//! Text: JSON lines `{"text": ..., "label": ...}` for classifiers, texts alone for causal models; a Hub tokenizer, batches.

use super::tokenizer;
use crate::model::Batch;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

/// Texts with their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub path: PathBuf,
    pub rows: Vec<Row>,
}

/// One labelled text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub text: String,
    pub label: String,
}

#[derive(Deserialize)]
struct RawRow {
    text: Option<String>,
    label: Option<serde_json::Value>,
}

impl Dataset {
    /// Reads a JSON-lines file. Labels are strings, integers or booleans; blank lines are skipped.
    ///
    /// # Errors
    /// Every wrong line by its number: no JSON, no `text`, no `label`; and a file without rows.
    pub fn read(path: &Path) -> Result<Self> {
        let example = r#"{"text": "...", "label": "..."}"#;
        let rows = lines(path, example, |line, wrong| {
            let raw = raw(line, wrong)?;
            let text = raw.text.ok_or_else(|| wrong("no `text`".into()))?;
            let label = match raw.label {
                Some(serde_json::Value::String(s)) => s,
                Some(v) if v.is_i64() || v.is_u64() || v.is_boolean() => v.to_string(),
                None | Some(serde_json::Value::Null) => return Err(wrong("no `label`".into())),
                Some(other) => {
                    return Err(wrong(format!("`label` is {other}, expected a string or an integer")));
                }
            };
            Ok(Row { text, label })
        })?;
        Ok(Self { path: path.to_owned(), rows })
    }

    /// The labels there are, sorted.
    pub fn labels(&self) -> Vec<String> {
        let set: BTreeSet<&String> = self.rows.iter().map(|r| &r.label).collect();
        set.into_iter().cloned().collect()
    }
}

/// Texts for a causal model: those of a file of JSON lines (`.jsonl` or `.json`) with a `text` each, and the lines of any
/// other file. Blank lines are skipped.
///
/// # Errors
/// As [`Dataset::read`].
pub fn texts(path: &Path) -> Result<Vec<String>> {
    let json = path.extension().is_some_and(|e| e == "jsonl" || e == "json");
    let example = if json { r#"{"text": "..."}"# } else { "one text a line" };
    lines(path, example, |line, wrong| match json {
        true => raw(line, wrong)?.text.ok_or_else(|| wrong("no `text`".into())),
        false => Ok(line.to_owned()),
    })
}

/// What `read` makes of every line that is not blank; it is handed the error for its line.
fn lines<T>(
    path: &Path,
    example: &str,
    mut read: impl FnMut(&str, &dyn Fn(String) -> Error) -> Result<T>,
) -> Result<Vec<T>> {
    let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(std::io::BufReader::new(file).lines()) {
        let line = line.map_err(|e| Error::file(path, e))?;
        if !line.trim().is_empty() {
            let wrong = |what: String| Error::format(path, format!("line {number}: {what}"));
            rows.push(read(&line, &wrong)?);
        }
    }
    match rows.is_empty() {
        true => Err(Error::format(path, format!("has no rows: expected lines like {example}"))),
        false => Ok(rows),
    }
}

fn raw(line: &str, wrong: &dyn Fn(String) -> Error) -> Result<RawRow> {
    serde_json::from_str(line).map_err(|e| {
        // serde counts lines within this one.
        let text = e.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        wrong(format!("{what} (column {})", e.column()))
    })
}

/// Rows as token ids and class numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<Vec<i64>>,
    pub labels: Vec<i64>,
    /// How many texts were cut to fit the model.
    pub truncated: usize,
    pad: i64,
}

/// Texts as token ids, for a causal model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    pub ids: Vec<Vec<i64>>,
    /// How many texts were cut to fit the model.
    pub truncated: usize,
    pad: i64,
}

/// A tokenizer with the model's limits.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    /// The same, cutting texts to the model's length, its special tokens kept.
    cutting: Tokenizer,
    path: PathBuf,
    alphabet: tokenizer::Alphabet,
    longest: usize,
    pad: i64,
    vocab: i64,
}

impl TextEncoder {
    /// Whether a model directory has a tokenizer: `tokenizer.json`, or the files of an older form.
    pub fn exists(dir: &Path) -> bool {
        tokenizer::exists(dir)
    }

    /// Reads the tokenizer of a directory for a model with `vocab` embeddings, `positions` positions and padding id `pad`:
    /// `tokenizer.json`, or the older `vocab.json` and `merges.txt` (GPT-2, RoBERTa, Qwen2) or `vocab.txt` (BERT), with the
    /// ids that transformers has. Texts that are longer are cut, and counted. Padding and truncation that a file itself asks
    /// for do not apply.
    ///
    /// # Errors
    /// No such file, one that is malformed, or of another kind of tokenizer (sentencepiece), with the command that converts it.
    pub fn open(dir: &Path, vocab: i64, positions: i64, pad: i64) -> Result<Self> {
        let tokenizer::Opened { tokenizer, path, alphabet } = tokenizer::open(dir)?;
        let longest = usize::try_from(positions).unwrap_or(0);
        let special = tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(false));
        if longest <= special {
            let message = format!("adds {special} tokens to every text, of which {} fit", positions.max(0));
            return Err(Error::format(path, message));
        }
        let mut cutting = tokenizer.clone();
        let params = TruncationParams { max_length: longest, ..TruncationParams::default() };
        cutting.with_truncation(Some(params)).map_err(|e| Error::format(&path, e))?;
        Ok(Self { tokenizer, cutting, path, alphabet, longest, pad, vocab })
    }

    /// Token ids and class numbers of a dataset; `labels` names the classes in order.
    ///
    /// # Errors
    /// A label that is not among `labels`, with its row; a token id beyond the model's vocabulary.
    pub fn encode(&self, data: &Dataset, labels: &[String]) -> Result<Encoded> {
        let classes = (1..).zip(&data.rows).map(|(number, row)| {
            let class = labels.iter().position(|l| *l == row.label).ok_or_else(|| {
                let label = &row.label;
                let known = labels.join(", ");
                let message = format!("row {number}: label `{label}` is not in the training data ({known})");
                Error::format(&data.path, message)
            })?;
            Ok(i64::try_from(class).unwrap_or(i64::MAX))
        });
        let labels = classes.collect::<Result<_>>()?;
        let texts: Vec<&str> = data.rows.iter().map(|r| r.text.as_str()).collect();
        let (ids, truncated) = self.rows(&texts)?;
        Ok(Encoded { ids, labels, truncated, pad: self.pad })
    }

    /// Token ids of texts that a causal model learns to write; `end` is put behind each that is not cut, so that it
    /// learns to stop.
    ///
    /// # Errors
    /// A text of one token, of which there is nothing to predict; a token id beyond the model's vocabulary.
    pub fn sequences<T: AsRef<str>>(&self, texts: &[T], end: Option<i64>) -> Result<Sequences> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let (mut ids, truncated) = self.rows(&texts)?;
        for (number, row) in (1..).zip(&mut ids) {
            if row.len() < self.longest {
                row.extend(end.filter(|id| row.last() != Some(id)));
            }
            if row.len() < 2 {
                let message = format!("text {number} is one token at most: there is nothing to predict");
                return Err(Error::Input(message));
            }
        }
        self.check(ids.iter().flatten())?;
        Ok(Sequences { ids, truncated, pad: self.pad })
    }

    /// Token ids of one text, however long: a prompt.
    ///
    /// # Errors
    /// A token id beyond the model's vocabulary.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>> {
        self.alphabet.check(text, &self.path)?;
        let encoding = self.tokenizer.encode(text, true).map_err(|e| Error::format(&self.path, e))?;
        let ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        self.check(&ids)?;
        Ok(ids)
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// An id below 0.
    pub fn text(&self, ids: &[i64]) -> Result<String> {
        let id = |id: &i64| u32::try_from(*id).map_err(|_| Error::Input(format!("{id} is no token id")));
        let ids = ids.iter().map(id).collect::<Result<Vec<_>>>()?;
        self.tokenizer.decode(&ids, true).map_err(|e| Error::format(&self.path, e))
    }

    /// Token ids, and how many texts were cut.
    fn rows(&self, texts: &[&str]) -> Result<(Vec<Vec<i64>>, usize)> {
        let broken = |e| Error::format(&self.path, e);
        let (mut rows, mut truncated) = (Vec::new(), 0usize);
        texts.iter().try_for_each(|text| self.alphabet.check(text, &self.path))?;
        let encodings = self.tokenizer.encode_batch(texts.to_vec(), true).map_err(broken)?;
        for (text, mut encoding) in texts.iter().zip(encodings) {
            if encoding.len() > self.longest {
                encoding = self.cutting.encode(*text, true).map_err(broken)?;
                truncated = truncated.saturating_add(1);
            }
            rows.push(encoding.get_ids().iter().map(|id| i64::from(*id)).collect());
        }
        self.check(rows.iter().flatten())?;
        Ok((rows, truncated))
    }

    fn check<'a>(&self, ids: impl IntoIterator<Item = &'a i64>) -> Result<()> {
        match ids.into_iter().find(|id| !(0..self.vocab).contains(*id)) {
            Some(id) => {
                let message = format!("token id {id} is beyond the model's vocabulary of {}", self.vocab);
                Err(Error::format(&self.path, message))
            }
            None => Ok(()),
        }
    }
}

impl Encoded {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The given rows as a batch, padded on the right to the longest of them, and their classes `[rows]`.
    pub fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        let classes = pick(&self.labels, rows)?.into_iter().copied().collect::<Vec<i64>>();
        let batch = Batch::padded(&pick(&self.ids, rows)?, self.pad, device)?;
        Ok((batch, Tensor::f_from_slice(&classes)?.f_to(device)?))
    }
}

impl Sequences {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The given rows as a batch, padded on the right to the longest of them, and their labels `[rows, length]`: the
    /// ids, −100 for padding.
    pub fn batch(&self, rows: &[usize], device: Device) -> Result<(Batch, Tensor)> {
        let batch = Batch::padded(&pick(&self.ids, rows)?, self.pad, device)?;
        let labels = batch.next_token_labels()?;
        Ok((batch, labels))
    }
}

fn pick<'a, T>(all: &'a [T], rows: &[usize]) -> Result<Vec<&'a T>> {
    let missing = || Error::Input(format!("a row beyond the {} there are", all.len()));
    rows.iter().map(|r| all.get(*r).ok_or_else(missing)).collect()
}
