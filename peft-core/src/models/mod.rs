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
mod pre_norm;
pub mod qwen2;
pub mod roberta;
mod rope;
pub mod tiny;

pub use activation::HiddenAct;
pub use decoder::{Decoder, DecoderConfig, Windowed};
pub use encoder::{Encoder, EncoderConfig, EncoderFamily};
pub use gpt2::{Gpt2, Gpt2Config};
pub use hub_model::{Described, Family, Head, HubModel};
pub use rope::{RopeConfig, RopeType};
pub use tiny::{Tiny, TinyConfig};

use crate::error::{Error, Result};
use serde_json::Value;

/// Every family of the Hub's that there is.
pub const FAMILIES: &[&Family] =
    &[&llama::FAMILY, &mistral::FAMILY, &qwen2::FAMILY, &gpt2::FAMILY, &bert::FAMILY, &roberta::FAMILY];

/// The family that a `config.json` names; `place` is what errors call the file.
///
/// # Errors
/// A `model_type` that is missing, or that is none of [`FAMILIES`].
pub fn family(json: &Value, place: &str) -> Result<&'static Family> {
    let wrong = |message: String| {
        let known: Vec<String> = FAMILIES.iter().map(|family| format!("`{}`", family.model_type)).collect();
        Err(Error::config(place, "model_type", format!("{message} one of {}", known.join(", "))))
    };
    let Some(model_type) = json.get("model_type").and_then(Value::as_str) else {
        return wrong("is missing, expected".to_owned());
    };
    match FAMILIES.iter().find(|family| family.model_type == model_type) {
        Some(family) => Ok(family),
        None => wrong(format!("`{model_type}` is not")),
    }
}
