//! Token ids that a model directory gives a meaning.

use crate::error::{Error, Result};
use crate::io::{directory, read_object, shown};
use serde_json::Value;
use std::path::Path;

/// Name of the settings for generating text.
pub(crate) const GENERATION: &str = "generation_config.json";

/// Token ids with a meaning, of a causal model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenIds {
    /// Those that end a text.
    pub eos: Vec<i64>,
    /// The one that fills rows up. Where the directory names none, the first of `eos`, or 0: it is masked anyway.
    pub pad: i64,
}

impl TokenIds {
    /// Reads `generation_config.json`, and what it does not say from `config.json`. An id below 0 is none: old files
    /// write −1.
    ///
    /// # Errors
    /// A file that is malformed, and ids that are none.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let (mut eos, mut pad) = (None, None);
        let generation = dir.join(GENERATION);
        let generation = generation.exists().then(|| Ok((read_object(&generation)?, generation)));
        for (json, path) in
            generation.into_iter().chain([directory::config(dir)]).collect::<Result<Vec<_>>>()?
        {
            eos = eos.or(ids(&json, "eos_token_id", &path)?);
            pad = pad.or(ids(&json, "pad_token_id", &path)?);
        }
        let eos = eos.unwrap_or_default();
        let pad = pad.unwrap_or_default().first().or(eos.first()).copied().unwrap_or_default();
        Ok(Self { eos, pad })
    }
}

/// One id, several, or null; those below 0 are none.
pub(crate) fn ids(json: &Value, field: &str, path: &Path) -> Result<Option<Vec<i64>>> {
    let value = json.get(field).filter(|v| !v.is_null());
    let read = |v: &Value| match v {
        Value::Array(all) => all.iter().map(Value::as_i64).collect(),
        one => one.as_i64().map(|id| vec![id]),
    };
    let wrong = |v: &Value| {
        Error::config(path.display(), field, format!("{} is not a token id, nor a list", shown(v)))
    };
    let Some(all) = value.map(|v| read(v).ok_or_else(|| wrong(v))).transpose()? else { return Ok(None) };
    let real: Vec<i64> = all.iter().copied().filter(|id| *id >= 0).collect();
    Ok(Some(real).filter(|real| !real.is_empty() || all.is_empty()))
}
