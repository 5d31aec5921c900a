//! The architectures, one file each.

mod activation;
mod attention;
pub mod bert;
mod causal;
mod classes;
pub mod decoder;
pub mod encoder;
pub mod gpt2;
pub(crate) mod hub_model;
pub mod llama;
pub mod mistral;
pub mod qwen2;
pub mod roberta;
mod rope;
pub mod tiny;

pub use activation::HiddenAct;
pub use bert::Bert;
pub use decoder::{Decoder, DecoderConfig, DecoderFamily, Windowed};
pub use encoder::{Encoder, EncoderConfig, EncoderFamily};
pub use gpt2::{Gpt2, Gpt2Config};
pub use llama::Llama;
pub use mistral::Mistral;
pub use qwen2::Qwen2;
pub use roberta::Roberta;
pub use rope::{RopeConfig, RopeType};
pub use tiny::{Tiny, TinyConfig};

use crate::error::{Error, Result};
use crate::hub::HubModel;
use crate::io;
use serde_json::Value;
use std::path::Path;

/// Code that works for a family which is known only once a `config.json` is read.
pub trait FamilyVisitor {
    /// What it gives.
    type Output;
    /// Runs it for the family `M`.
    fn visit<M: HubModel>(self) -> Self::Output;
}

macro_rules! families {
    ($($Model:ty),* $(,)?) => {
        /// Every `model_type` that there is a family for.
        pub const MODEL_TYPES: &[&str] = &[$(<$Model as HubModel>::MODEL_TYPE),*];

        /// Runs `visitor` for the family of a `model_type`; `place` is what the error calls its file.
        pub fn family<V: FamilyVisitor>(model_type: &str, place: &str, visitor: V) -> Result<V::Output> {
            $(if model_type == <$Model as HubModel>::MODEL_TYPE {
                return Ok(visitor.visit::<$Model>());
            })*
            let message = format!("`{model_type}` is not one of {}", MODEL_TYPES.join(", "));
            Err(Error::config(place, "model_type", message))
        }
    };
}

/// As [`family`], of the model directory `dir`.
///
/// # Errors
/// Anything that is no model directory, by what it is, and one of another `model_type`.
pub fn family_of<V: FamilyVisitor>(dir: &Path, visitor: V) -> Result<V::Output> {
    let (json, path) = io::directory::config(dir)?;
    let place = path.display().to_string();
    family(model_type(&json, &place)?, &place, visitor)
}

/// The family that a `config.json` names.
pub(crate) fn model_type<'a>(json: &'a Value, place: &str) -> Result<&'a str> {
    let missing = || format!("is missing, expected one of {}", MODEL_TYPES.join(", "));
    json.get("model_type")
        .and_then(Value::as_str)
        .ok_or_else(|| Error::config(place, "model_type", missing()))
}

families!(Llama, Mistral, Qwen2, Gpt2, Bert, Roberta);
