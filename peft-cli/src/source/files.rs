//! Which files of a repository are read.

use anyhow::{Result, bail};
use peft_core::hub::{self, TOKENIZER};
use peft_core::io::{adapter, read_json};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// A model, or an adapter of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Model,
    Adapter,
    /// Of a model `config.json` alone, which says its shape.
    Config,
}

/// Of these one is enough to make tokens.
const VOCABULARIES: [&str; 4] = ["tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"];

impl Kind {
    /// The file without which it is none.
    pub fn config(self) -> &'static str {
        match self {
            Self::Model | Self::Config => hub::CONFIG,
            Self::Adapter => adapter::CONFIG,
        }
    }

    fn other(self) -> (Self, &'static str) {
        match self {
            Self::Model | Self::Config => (Self::Adapter, "an adapter"),
            Self::Adapter => (Self::Model, "a model"),
        }
    }

    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Model => &["generation_config.json"],
            Self::Adapter => &[adapter::CLASSES, adapter::PROVENANCE],
            Self::Config => &[],
        }
    }

    /// Ways to have the weights, the best one first: a file, and for a model an index of shards that stands for it.
    fn weights(self) -> &'static [&'static str] {
        match self {
            Self::Model => &[
                "model.safetensors",
                "model.safetensors.index.json",
                "pytorch_model.bin",
                "pytorch_model.bin.index.json",
            ],
            Self::Adapter => &[adapter::TENSORS, "adapter_model.bin"],
            Self::Config => &[],
        }
    }

    /// Of the names that a folder of a repository has, those that are read; the shards are told by the index that is among
    /// them.
    ///
    /// # Errors
    /// A folder that has no configuration or no weights.
    pub fn wanted(self, names: &[&str]) -> Result<Vec<String>> {
        let has = |name: &&str| names.contains(name);
        if !has(&self.config()) {
            let (other, what) = self.other();
            if has(&other.config()) {
                bail!("it has {} and no {}: it is {what}", other.config(), self.config());
            }
            bail!("it has no {}; {}", self.config(), listed(names));
        }
        if self == Self::Config {
            return Ok(vec![self.config().to_owned()]);
        }
        let Some(weights) = self.weights().iter().find(|name| has(name)) else {
            bail!("it has none of {}; {}", self.weights().join(", "), listed(names));
        };
        let fixed = [self.config()].into_iter().chain(self.settings().iter().copied()).chain(TOKENIZER);
        let templates = names.iter().filter(|name| template(name));
        Ok(fixed.filter(has).chain(templates.copied()).chain([*weights]).map(str::to_owned).collect())
    }

    /// What the directory lacks to be used: configuration, weights, shards.
    pub fn missing(self, dir: &Path) -> Vec<String> {
        let has = |name: &&&str| dir.join(name).exists();
        let mut missing: Vec<_> =
            [self.config()].into_iter().filter(|name| !has(&name)).map(str::to_owned).collect();
        match self.weights().iter().find(has) {
            None => missing.extend(self.weights().first().map(|name| (*name).to_owned())),
            Some(index) if is_index(index) => {
                let shards = shards(&dir.join(index)).unwrap_or_default();
                missing.extend(shards.into_iter().filter(|shard| !dir.join(shard).exists()));
            }
            Some(_) => {}
        }
        missing
    }

    /// Whether nothing can be missing in the directory: what may be absent from a repository, a model's tokenizer, is there.
    pub fn whole(self, dir: &Path) -> bool {
        let tokens = self != Self::Model || VOCABULARIES.iter().any(|name| dir.join(name).exists());
        tokens && self.missing(dir).is_empty()
    }
}

/// Whether a file of that name is read as part of a directory.
pub fn belongs(name: &str) -> bool {
    let kinds = [Kind::Model, Kind::Adapter];
    kinds.iter().any(|kind| name == kind.config() || kind.weights().contains(&name))
        || TOKENIZER.contains(&name)
}

pub fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}

fn template(name: &str) -> bool {
    name.strip_prefix("additional_chat_templates/").is_some_and(|name| name.ends_with(".jinja"))
}

/// The shards that an index lists.
///
/// # Errors
/// A file that is no index, and a shard that does not lie beside it.
pub fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let value: Value = read_json(index)?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        bail!("{}: has no `weight_map`, which says the file of each tensor", index.display());
    };
    let mut shards = BTreeSet::new();
    for (tensor, file) in map {
        match file.as_str() {
            Some(file) if super::id::plain(file) => shards.insert(file.to_owned()),
            _ => bail!("{}: weight_map.{tensor}: {file} is no name of a file beside it", index.display()),
        };
    }
    Ok(shards)
}

fn listed(names: &[&str]) -> String {
    let some: Vec<_> = names.iter().take(8).copied().collect();
    match names.len() {
        0 => "it has no files there".into(),
        n if n > some.len() => {
            format!("it has {} and {} more", some.join(", "), n.saturating_sub(some.len()))
        }
        _ => format!("it has {}", some.join(", ")),
    }
}
