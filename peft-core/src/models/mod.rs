//! The architectures, one file each.

mod activation;
mod attention;
pub mod bert;
mod causal;
pub mod decoder;
pub mod encoder;
mod fields;
pub mod gpt2;
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

use crate::io::hub::HubModel;
use crate::{Error, Result, io};
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
/// A directory without a `config.json`, or one of another `model_type`.
pub fn family_of<V: FamilyVisitor>(dir: &Path, visitor: V) -> Result<V::Output> {
    io::settle(dir, io::hub::CONFIG)?;
    let path = dir.join(io::hub::CONFIG);
    let json = io::read_json(&path)?;
    let model_type = json.get("model_type").and_then(|t| t.as_str()).unwrap_or("(none)");
    family(model_type, &path.display().to_string(), visitor)
}

families!(Llama, Mistral, Qwen2, Gpt2, Bert, Roberta);
