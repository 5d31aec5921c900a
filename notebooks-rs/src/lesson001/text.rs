//! Real text for the sections that want some: one-line descriptions of packages, each with the section of the archive
//! that it is in, as token ids. The tokenizer knows whole words, and is read from a `tokenizer.json` as that of any model.

use anyhow::{Context, Result};
use peft_core::Batch;
use peft_core::io::write_json;
use peft_core::text::{Dataset, Limits, Row, TextEncoder};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};
use tempfile::TempDir;

const TRAIN: &str = include_str!("../../../data/debian_sections/train.jsonl");
const TEST: &str = include_str!("../../../data/debian_sections/test.jsonl");

/// Between a description and its section.
const COLON: &str = ":";
/// The first tokens: padding, a word that is not known.
const SPECIAL: [&str; 2] = ["[PAD]", "[UNK]"];
pub const PAD: i64 = 0;
/// Tokens of a text, at most.
const LONGEST: i64 = 32;
/// Words that occur less often are not known.
const RARE: usize = 3;

/// The texts as token ids, and the tokenizer, in a directory of its own.
#[derive(Debug)]
pub struct Text {
    dir: TempDir,
    pub encoder: TextEncoder,
    pub vocab: i64,
    colon: i64,
    pub train: Vec<Example>,
    pub test: Vec<Example>,
    /// Number of sections.
    pub sections: usize,
    words: Vec<String>,
}

/// A description and its section.
#[derive(Debug, Clone)]
pub struct Example {
    pub words: Vec<i64>,
    pub section: i64,
}

impl Text {
    /// Reads the texts and makes a tokenizer of their words.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let read = |name: &str, text: &str| -> Result<Dataset> {
            let path = dir.path().join(name);
            std::fs::write(&path, text)?;
            Ok(Dataset::read(&path)?)
        };
        let (train, test) = (read("train.jsonl", TRAIN)?, read("test.jsonl", TEST)?);
        let words = vocabulary(&train);
        write_json(dir.path().join("tokenizer.json"), &tokenizer(&words))?;
        let vocab = words.len() as i64;
        let encoder = TextEncoder::open(dir.path(), Limits { vocab, positions: Some(LONGEST), pad: PAD })?;
        let (sections, colon) = (train.labels().len(), one(&encoder, COLON)?);
        let examples = |data: &Dataset| -> Result<Vec<Example>> {
            let example = |row: &Row| -> Result<Example> {
                Ok(Example { words: encoder.ids(&row.text)?, section: one(&encoder, &row.label)? })
            };
            data.rows.iter().map(example).collect()
        };
        let (train, test) = (examples(&train)?, examples(&test)?);
        Ok(Self { dir, encoder, vocab, colon, train, test, sections, words })
    }

    /// Where the tokenizer lies.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The word of a token.
    pub fn word(&self, id: i64) -> Result<String> {
        self.words.get(id as usize).cloned().with_context(|| format!("no token {id}"))
    }

    /// What the model reads before it is fine-tuned, the entries of a catalogue: `section : description`.
    pub fn entry(&self, of: &Example) -> Vec<i64> {
        [&[of.section, self.colon], &of.words[..]].concat()
    }

    /// Questions `description :`, each with its section behind it, padded, and labels of which the sections alone count.
    pub fn questions(&self, of: &[&Example], device: Device) -> Result<(Batch, Tensor)> {
        let rows = of.iter().map(|e| [&e.words[..], &[self.colon, e.section]].concat());
        let batch = Batch::padded(&rows.collect::<Vec<_>>(), PAD, device)?;
        let length = batch.ids()?.size2()?.1 as usize;
        let labels = of.iter().flat_map(|e| {
            let mut labels = vec![-100; length];
            labels[e.words.len() + 1] = e.section;
            labels
        });
        let labels = Tensor::f_from_slice(&labels.collect::<Vec<_>>())?.f_view_as(batch.ids()?)?;
        Ok((batch, labels.f_to(device)?))
    }
}

/// The id of a text that is one token.
fn one(encoder: &TextEncoder, word: &str) -> Result<i64> {
    encoder.ids(word)?.first().copied().with_context(|| format!("`{word}` has no token"))
}

/// The special tokens, the labels, and every word of the texts that is not rare, most frequent first.
fn vocabulary(data: &Dataset) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in &data.rows {
        for word in words(&row.text.to_lowercase()) {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    let labels = data.labels();
    for label in &labels {
        counts.remove(label);
    }
    let mut known: Vec<(String, usize)> = counts.into_iter().filter(|(_, n)| *n >= RARE).collect();
    known.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let special = SPECIAL.map(str::to_owned).into_iter();
    special.chain(labels).chain(known.into_iter().map(|(word, _)| word)).collect()
}

/// Runs of letters and digits, and runs of other signs, as the tokenizer's `Whitespace` parts them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split_whitespace().flat_map(move |part| {
        let mut rest = part;
        std::iter::from_fn(move || {
            let first = of_word(rest.chars().next()?);
            let end = rest.find(|c| of_word(c) != first).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            Some(word)
        })
    })
}

/// A `tokenizer.json` that knows these words.
fn tokenizer(words: &[String]) -> Value {
    let vocab: Map<String, Value> =
        (0..).zip(words).map(|(id, w): (i64, _)| (w.clone(), id.into())).collect();
    let special = (0i64..).zip(SPECIAL).map(|(id, content)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.collect::<Vec<_>>(),
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": SPECIAL[1] }
    })
}
