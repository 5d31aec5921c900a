//! Labelled text: JSON lines `{"text": ..., "label": ...}`, a Hub tokenizer, batches.

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
        let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
        let mut rows = Vec::new();
        for (number, line) in (1..).zip(std::io::BufReader::new(file).lines()) {
            let line = line.map_err(|e| Error::file(path, e))?;
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |what: String| Error::format(path, format!("line {number}: {what}"));
            let raw: RawRow = serde_json::from_str(&line).map_err(|e| {
                // serde counts lines within this one.
                let text = e.to_string();
                let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
                wrong(format!("{what} (column {})", e.column()))
            })?;
            let text = raw.text.ok_or_else(|| wrong("no `text`".into()))?;
            let label = match raw.label {
                Some(serde_json::Value::String(s)) => s,
                Some(v) if v.is_i64() || v.is_u64() || v.is_boolean() => v.to_string(),
                None | Some(serde_json::Value::Null) => return Err(wrong("no `label`".into())),
                Some(other) => {
                    return Err(wrong(format!("`label` is {other}, expected a string or an integer")));
                }
            };
            rows.push(Row { text, label });
        }
        if rows.is_empty() {
            return Err(Error::format(
                path,
                "has no rows: expected lines like {\"text\": \"...\", \"label\": \"...\"}",
            ));
        }
        Ok(Self { path: path.to_owned(), rows })
    }

    /// The labels there are, sorted.
    pub fn labels(&self) -> Vec<String> {
        let set: BTreeSet<&String> = self.rows.iter().map(|r| &r.label).collect();
        set.into_iter().cloned().collect()
    }
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

/// A `tokenizer.json` with the model's limits.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    /// The same, cutting texts to the model's length, its special tokens kept.
    cutting: Tokenizer,
    path: PathBuf,
    longest: usize,
    pad: i64,
    vocab: i64,
}

impl TextEncoder {
    /// Reads `dir/tokenizer.json` for a model with `vocab` embeddings, `positions` positions and padding id `pad`.
    /// Texts that are longer are cut, and counted. Padding and truncation that the file itself asks for do not apply.
    pub fn open(dir: &Path, vocab: i64, positions: i64, pad: i64) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            let message = "is not there: a model for text needs its tokenizer beside it (slow tokenizers with only \
                           vocab.txt can be saved as tokenizer.json by Hugging Face's tokenizers)";
            return Err(Error::format(path, message));
        }
        let mut tokenizer = Tokenizer::from_file(&path).map_err(|e| Error::format(&path, e))?;
        tokenizer.with_padding(None).with_truncation(None).map_err(|e| Error::format(&path, e))?;
        let longest = usize::try_from(positions).unwrap_or(0);
        let special = tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(false));
        if longest <= special {
            let message =
                format!("adds {special} tokens to every text, and the model has {positions} positions");
            return Err(Error::format(path, message));
        }
        let mut cutting = tokenizer.clone();
        let params = TruncationParams { max_length: longest, ..TruncationParams::default() };
        cutting.with_truncation(Some(params)).map_err(|e| Error::format(&path, e))?;
        Ok(Self { tokenizer, cutting, path, longest, pad, vocab })
    }

    /// Token ids and class numbers of a dataset; `labels` names the classes in order.
    ///
    /// # Errors
    /// A label that is not among `labels`, with its row; a token id beyond the model's vocabulary.
    pub fn encode(&self, data: &Dataset, labels: &[String]) -> Result<Encoded> {
        let mut out = Encoded { ids: Vec::new(), labels: Vec::new(), truncated: 0, pad: self.pad };
        let texts: Vec<&str> = data.rows.iter().map(|r| r.text.as_str()).collect();
        let encodings = self.tokenizer.encode_batch(texts, true).map_err(|e| Error::format(&self.path, e))?;
        for ((number, row), mut encoding) in (1..).zip(&data.rows).zip(encodings) {
            let Some(class) = labels.iter().position(|l| *l == row.label) else {
                let message = format!(
                    "row {number}: label `{}` is not in the training data ({})",
                    row.label,
                    labels.join(", ")
                );
                return Err(Error::format(&data.path, message));
            };
            if encoding.len() > self.longest {
                encoding =
                    self.cutting.encode(row.text.as_str(), true).map_err(|e| Error::format(&self.path, e))?;
                out.truncated = out.truncated.saturating_add(1);
            }
            let ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
            if let Some(id) = ids.iter().find(|id| **id >= self.vocab) {
                let message = format!("token id {id} is beyond the model's vocabulary of {}", self.vocab);
                return Err(Error::format(&self.path, message));
            }
            out.ids.push(ids);
            out.labels.push(i64::try_from(class).unwrap_or(i64::MAX));
        }
        Ok(out)
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
        let missing = || Error::Input(format!("a row beyond the {} there are", self.len()));
        let picked = rows.iter().map(|r| self.ids.get(*r).zip(self.labels.get(*r)).ok_or_else(missing));
        let picked = picked.collect::<Result<Vec<_>>>()?;
        let longest = picked.iter().map(|(ids, _)| ids.len()).max().unwrap_or_default();
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (row, _) in &picked {
            let padding = longest.saturating_sub(row.len());
            ids.extend(row.iter().copied().chain(std::iter::repeat_n(self.pad, padding)));
            mask.extend(std::iter::repeat_n(1i64, row.len()).chain(std::iter::repeat_n(0, padding)));
        }
        let shape =
            [i64::try_from(rows.len()).unwrap_or_default(), i64::try_from(longest).unwrap_or_default()];
        let padded = mask.contains(&0);
        let tensor =
            |v: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(v)?.f_view(shape)?.f_to(device)?) };
        let classes: Vec<i64> = picked.iter().map(|(_, label)| **label).collect();
        let mask = if padded { Some(tensor(&mask)?) } else { None };
        Ok((Batch { ids: tensor(&ids)?, mask }, Tensor::f_from_slice(&classes)?.f_to(device)?))
    }
}
