//! What base an adapter was made for, and by what: `peft_rs.json` beside its two files.
//!
//! An adapter is a change of weights, and over other weights than those it was trained on it is another change, of which
//! nothing is said anywhere: the shapes fit. So a [`Provenance`] keeps a hash of each of the base's tensors where the adapter
//! is, and [`Peft::load`] compares them with those of the base that is there.
//!
//! ```
//! # use peft_core::{Peft, methods::LoraConfig, models::TinyConfig, io::IfExists};
//! # use peft_core::provenance::{OtherBase, Provenance};
//! # use peft_core::tch::Device;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = TinyConfig::default();
//! # let open = || Peft::new(config.init(Device::Cpu)?, config.clone());
//! # let dir = tempfile::tempdir()?;
//! let mut peft = open()?;
//! peft.add("mine", LoraConfig::new(8).targets(["ff.0"]))?;
//! let made = peft.provenance("mine")?.recipe(serde_json::json!({ "lr": 1e-3 }));
//! peft.save_with_provenance("mine", dir.path(), IfExists::Refuse, &made)?;
//!
//! let mut other = open()?; // drawn anew: other weights of the same shapes
//! let error = other.load("mine", dir.path()).unwrap_err().to_string();
//! assert!(error.contains("another base: 2 of 4 tensors have other values, `layers.0.ff.0.weight` first"), "{error}");
//! for warning in other.load_with("mine", dir.path(), OtherBase::Accept)? {
//!     eprintln!("warning: {warning}");
//! }
//! # Ok(())
//! # }
//! ```

mod compare;
mod hashes;

use crate::error::{Error, Result};
use crate::io;
use crate::peft::provenance::hashes::{fingerprint, hex};
use crate::warning::Warning;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the file's form.
const FORMAT: u64 = 1;

/// What becomes of an adapter that was made for another base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherBase {
    /// Loading it is [`Error::OtherBase`].
    #[default]
    Refuse,
    /// It is loaded, and what differs is a warning.
    Accept,
}

impl OtherBase {
    /// For a program's `--force`.
    #[must_use]
    pub fn accept(yes: bool) -> Self {
        if yes { Self::Accept } else { Self::Refuse }
    }
}

/// What base an adapter was made for, and by what. The base is frozen, so one is made once and saved as often as the adapter
/// is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    format: u64,
    /// Programs and libraries that made the adapter, with their versions.
    pub versions: BTreeMap<String, String>,
    /// The base.
    pub base: Base,
    /// SHA-256 of the base's `tokenizer.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// How it was trained: whatever the program that did it calls a recipe.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub recipe: Value,
}

/// The base that an adapter was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// `base_model_name_or_path` of the adapter's configuration; empty where it has none.
    pub name: String,
    /// `model_type` of the Hub's configuration.
    pub model_type: String,
    /// SHA-256 over names, dtypes, shapes and hashes of `tensors`.
    pub fingerprint: String,
    /// The tensors where the adapter is: weights and biases of the layers that it adapts, and what is within blocks that it
    /// adapts, but for those that its own file has. For an adapter at no layer, the word embedding, or else all there are.
    pub tensors: BTreeMap<String, TensorHash>,
}

/// What is known of a tensor of the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorHash {
    /// As safetensors have it (`F32`), or `NF4` and `NF4_DOUBLE` for a weight in 4 bits.
    pub dtype: String,
    /// Shape, as a file has it; of the dense weight, for one in 4 bits.
    pub shape: Vec<i64>,
    /// The first 16 digits of the SHA-256 of its bytes; of a weight in 4 bits, of its codes and scales.
    pub sha256: String,
    /// The same of a tensor of `F32` once it is rounded to these dtypes: the base may be opened in one of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rounded: BTreeMap<String, String>,
}

impl Provenance {
    /// Adds the recipe, any JSON.
    #[must_use]
    pub fn recipe(self, recipe: impl Into<Value>) -> Self {
        Self { recipe: recipe.into(), ..self }
    }

    /// Adds the version of a program or a library.
    #[must_use]
    pub fn version(mut self, of: impl Into<String>, version: impl Into<String>) -> Self {
        self.versions.insert(of.into(), version.into());
        self
    }

    /// Adds the hash of `tokenizer.json` in the base's directory, where there is one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn tokenizer_of(self, dir: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { tokenizer: tokenizer(dir.as_ref())?, ..self })
    }

    /// Whether the base's directory has the tokenizer that the adapter was made with; the warning where it has another one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn check_tokenizer(&self, dir: impl AsRef<Path>) -> Result<Option<Warning>> {
        let dir = dir.as_ref();
        Ok(match (&self.tokenizer, tokenizer(dir)?) {
            (Some(made), Some(found)) if *made != found => {
                let message =
                    "is another one than the adapter was made with: the same text may have other tokens";
                Some(Warning::new(dir.join(TOKENIZER).display(), "sha256", message))
            }
            _ => None,
        })
    }

    /// What an adapter's directory says of this; `None` where it says nothing.
    ///
    /// # Errors
    /// A file that is damaged, or of a version that is not known here.
    pub fn read(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let (dir, path) = (dir.as_ref(), dir.as_ref().join(io::adapter::PROVENANCE));
        if !io::adapter::exists(dir)? {
            return Ok(None);
        }
        io::adapter::provenance(dir)?.map(|json| Self::parse(&json, &path)).transpose()
    }

    /// The file.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::format(io::adapter::PROVENANCE, e))
    }

    fn parse(json: &Value, path: &Path) -> Result<Self> {
        match json.get("format").and_then(Value::as_u64) {
            Some(FORMAT) => {}
            found => {
                let found = found.map_or("none".to_owned(), |f| f.to_string());
                let message = format!(
                    "format: is {found}, and {FORMAT} is what is known here: another version wrote it"
                );
                return Err(Error::format(path, message));
            }
        }
        let made: Self = serde_path_to_error::deserialize(json)
            .map_err(|e| Error::format(path, format!("{}: {}", e.path(), e.inner())))?;
        if made.base.fingerprint != fingerprint(&made.base.tensors) {
            let message =
                "base: its fingerprint is not that of its tensors: the file was changed or is damaged";
            return Err(Error::format(path, message));
        }
        Ok(made)
    }
}

/// Name of the tokenizer's file.
const TOKENIZER: &str = "tokenizer.json";

fn tokenizer(dir: &Path) -> Result<Option<String>> {
    let path = dir.join(TOKENIZER);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
    Ok(Some(hex(&Sha256::digest(&bytes))))
}
