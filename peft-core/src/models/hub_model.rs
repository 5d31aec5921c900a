//! The Hub's form of a model: what a family says of its files.

use crate::error::Result;
use crate::run::Architecture;
use crate::seam::{Dims, TaskType, Transformer};
use crate::warning::Warning;
use serde_json::Value;
use std::sync::Arc;
use tch::Tensor;

/// An architecture that the Hub has a form for.
pub trait HubModel: Architecture {
    /// The Hub's class, head included: `LlamaForCausalLM`.
    fn class(&self) -> &'static str;

    /// This crate's name for a tensor of the file, or `None` for one that belongs to something else (another head,
    /// a buffer).
    fn rename(&self, name: &str) -> Option<String>;

    /// A fresh head, for a file that has none; drawn from libtorch's generator.
    ///
    /// # Errors
    /// What libtorch says.
    fn fresh_head(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }

    /// The head's parameter and the word embedding's, where the configuration says that they are one.
    fn tied(&self) -> Option<[&'static str; 2]> {
        None
    }
}

/// What a `config.json` comes to: the architecture, and what the file says that does not count.
pub type Described = (Arc<dyn HubModel>, Vec<Warning>);

/// A family of the Hub's models.
#[derive(Debug)]
pub struct Family {
    /// `model_type` of its `config.json`.
    pub model_type: &'static str,
    /// The Hub's class, head included.
    pub class: &'static str,
    /// What its head is for.
    pub task: TaskType,
    pub(super) describe: fn(&Value, &str, Option<i64>) -> Result<Described>,
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

impl Family {
    /// The architecture in `config.json`, with `classes` of a classifier where that is given.
    ///
    /// # Errors
    /// A field that is missing or malformed, or that asks for something this crate does not have.
    pub fn describe(&self, json: &Value, place: &str, classes: Option<i64>) -> Result<Described> {
        (self.describe)(json, place, classes)
    }

    /// What methods ask of a model of this family, with this head over this stack.
    pub(super) fn dims(&self, head: &str, transformer: Transformer) -> Dims {
        Dims {
            model_type: self.model_type.into(),
            task: Some(self.task),
            head: Some(head.into()),
            transformer: Some(transformer),
            ..Dims::default()
        }
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
    /// How many classes are asked for, if any number is.
    pub fn classes(self) -> Option<i64> {
        match self {
            Head::Stored => None,
            Head::Classes(n) | Head::Fresh(n) => Some(n),
        }
    }
}
