//! The Hub's form of a model: what a family says of its files.

use crate::error::Result;
use crate::run::model::Model;
use crate::warning::Warning;
use serde_json::Value;
use tch::Tensor;

/// A model that the Hub has a form for.
pub trait HubModel: Model {
    /// The family's `model_type`.
    const MODEL_TYPE: &'static str;
    /// The Hub's class, head included.
    const ARCHITECTURE: &'static str;

    /// The configuration in `config.json`, with `labels` classes where that is given.
    ///
    /// # Errors
    /// A field that is missing, or that asks for something this crate does not have.
    fn config(json: &Value, place: &str, labels: Option<i64>) -> Result<Self::Config>;

    /// What a `config.json` that [`Self::config`] takes says and that does not count.
    ///
    /// # Errors
    /// As [`Self::config`].
    fn passed_over(json: &Value, place: &str) -> Result<Vec<Warning>> {
        let _ = (json, place);
        Ok(Vec::new())
    }

    /// This crate's name for a tensor of the file, or `None` for one that belongs to something else (another head,
    /// a buffer).
    fn rename(name: &str) -> Option<String>;

    /// A fresh head, for a file that has none.
    fn fresh_head(config: &Self::Config) -> Result<Vec<(String, Tensor)>>;

    /// `config.json` as it was read, with what has changed since.
    fn json(config: &Self::Config) -> Value;

    /// The head's parameter and the word embedding's, where the configuration says that they are one.
    fn tied(config: &Self::Config) -> Option<[&'static str; 2]> {
        let _ = config;
        None
    }
}

/// Which head a classifier is opened with. Fresh heads are drawn from libtorch's generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The file's.
    Stored,
    /// The file's, which must have that many classes; a fresh one if the file has none.
    Classes(i64),
    /// A fresh one with that many classes, whatever the file has.
    Fresh(i64),
}

impl Head {
    pub(crate) fn classes(self) -> Option<i64> {
        match self {
            Head::Stored => None,
            Head::Classes(n) | Head::Fresh(n) => Some(n),
        }
    }
}
