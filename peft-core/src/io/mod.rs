//! Files: safetensors, adapter directories, Hub model directories, labelled text.

pub mod adapter;
pub mod hub;
mod model_dir;
mod place;
mod quantised;
mod saving;
mod shards;
mod stage;
pub mod tensors;
pub mod text;
mod write;

pub use place::IfExists;
pub(crate) use saving::settle;
pub use write::{write_atomically, write_json};

use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// A JSON file.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::format(path, e))
}
