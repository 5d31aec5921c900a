//! What the programs share: adapters and numbers on the command line, warnings.
#![allow(dead_code)] // every program has a use for some of it

use anyhow::{Context, Result, ensure};
use peft_core::Peft;
use peft_core::io::adapter;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An adapter as it is given: DIR, which is called by its folder's name, or NAME=DIR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub name: Option<String>,
    pub dir: PathBuf,
}

impl FromStr for Given {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            // A folder may have a `=` in its own name.
            Some((name, dir)) if !Path::new(text).exists() => {
                ensure!(!name.is_empty() && !dir.is_empty(), "expected DIR or NAME=DIR");
                Ok(Self { name: Some(name.to_owned()), dir: dir.into() })
            }
            _ => Ok(Self { name: None, dir: text.into() }),
        }
    }
}

/// Loads the adapters; of a directory with several, all. Says on stderr what of their files is passed over. Their names.
pub fn load(peft: &mut Peft, given: &[Given]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for Given { name, dir } in given {
        match name {
            Some(name) => {
                warn(peft.load(name, dir)?);
                names.push(name.clone());
            }
            None if adapter::exists(dir)? => {
                let folder = dir.canonicalize().with_context(|| dir.display().to_string())?;
                let name = folder.file_name().and_then(|n| n.to_str());
                let name = name.with_context(|| format!("{}: give it a name, NAME=DIR", dir.display()))?;
                warn(peft.load(name, dir)?);
                names.push(name.to_owned());
            }
            None => {
                let loaded = peft.load_all(dir)?;
                warn(loaded.warnings);
                names.extend(loaded.names);
            }
        }
    }
    Ok(names)
}

/// A number above 0, for `value_parser`.
pub fn positive<T: FromStr<Err: Display> + PartialOrd + Default + Into<f64> + Copy>(
    text: &str,
) -> Result<T, String> {
    let value: T = text.parse().map_err(|e| format!("{e}"))?;
    let fine = value > T::default() && value.into().is_finite();
    if fine { Ok(value) } else { Err("should be a positive number".into()) }
}

/// Says what was read and is passed over.
pub fn warn(warnings: impl IntoIterator<Item = impl Display>) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}
