//! The conformance table: one row a method variant. Every law runs over every row, on every model.

mod adapters;
mod copies;
mod lora;
mod products;
mod prompts;
mod vectors;
pub mod words;

use crate::subject::Sizes;
use anyhow::{Context, Result};
use peft_core::methods::{Common, PeftConfig, from_json, to_json};
use peft_core::seam::MethodConfig;
use serde_json::Value;
use std::fmt::Debug;

/// The configuration of any method of the table.
#[derive(Debug)]
pub struct Config(Box<dyn Erased>);

trait Erased: Debug {
    fn copy(&self) -> Box<dyn Erased>;
    fn method(&self) -> Box<dyn MethodConfig>;
    fn json(&self) -> peft_core::Result<Value>;
}

impl<C: PeftConfig> Erased for C {
    fn copy(&self) -> Box<dyn Erased> {
        Box::new(self.clone())
    }
    fn method(&self) -> Box<dyn MethodConfig> {
        Box::new(self.clone())
    }
    fn json(&self) -> peft_core::Result<Value> {
        to_json(self)
    }
}

impl Clone for Config {
    fn clone(&self) -> Self {
        Config(self.0.copy())
    }
}

impl Config {
    /// The method itself.
    pub fn method(&self) -> Box<dyn MethodConfig> {
        self.0.method()
    }

    /// The fields of its file, as they are before a model completes them.
    pub fn json(&self) -> Result<Value> {
        Ok(self.0.json()?)
    }

    /// The method with one field of its file changed.
    pub fn with(&self, field: &str, value: impl Into<Value>) -> Result<Box<dyn MethodConfig>> {
        let mut json = self.json()?;
        *json.get_mut(field).with_context(|| format!("no field {field}"))? = value.into();
        Ok(from_json(json, "edited")?)
    }
}

/// What the model with a fresh adapter computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// What it computes without, to the last bit.
    Same,
    /// The same up to this relative error, but not the same.
    Near(f64),
    /// Something else.
    Other,
}

/// Whether the adapter folds into the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    Folds,
    /// The refusal names the method and the site.
    Refused(&'static str, &'static str),
}

/// One method variant on one model.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    pub config: Config,
    pub start: Start,
    pub merge: Merge,
    /// Trained parameters, in closed form.
    pub count: i64,
    /// Whether the method itself drops anything in training.
    pub dropout: bool,
    /// Parameters that are counted beside those of the base. By default, all trained ones.
    pub more: i64,
    /// Whether the adapter hides parameters that a LoRA changes behind copies of its own.
    pub hides: bool,
    /// Whether it gives the same above a LoRA and below it.
    pub commutes: bool,
    /// Whether the gradient is the whole slope. DoRA's leaves out what its norm would add.
    pub slope: bool,
    /// Whether the adapter's start is taken from the base, so that it is another adapter over another base.
    pub from_base: bool,
    /// Whether the file has the very tensors that are trained.
    pub stored: bool,
    /// Tensors that are never trained.
    pub frozen: Vec<String>,
}

impl Row {
    /// A row with the usual answers.
    pub fn new(name: &'static str, config: impl PeftConfig, count: i64) -> Self {
        Row {
            name,
            config: Config(Box::new(config)),
            start: Start::Same,
            merge: Merge::Folds,
            count,
            dropout: false,
            more: count,
            hides: false,
            commutes: true,
            slope: true,
            from_base: false,
            stored: true,
            frozen: Vec::new(),
        }
    }

    /// The same row with another start.
    #[must_use]
    pub fn starts(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// The same row, whose file has something else than the tensors that are trained.
    #[must_use]
    pub fn encoded(self) -> Self {
        Self { stored: false, ..self }
    }

    /// The same row, refused when merging.
    #[must_use]
    pub fn refused(self, method: &'static str, site: &'static str) -> Self {
        Self { merge: Merge::Refused(method, site), ..self }
    }
}

/// The rows for a model of these sizes, trained for a task.
pub fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let groups =
        [lora::rows, words::rows, vectors::rows, products::rows, adapters::rows, copies::rows, prompts::rows];
    groups.into_iter().flat_map(|rows| rows(s, common)).collect()
}
