//! Mistral: the plain decoder with grouped key heads and a sliding window, as the Hub's `MistralForCausalLM` has it.
//! Jiang et al. 2023, <https://arxiv.org/abs/2310.06825>.

use crate::error::Result;
use crate::io::fields::Fields;
use crate::models::decoder::{Decoder, DecoderConfig, DecoderFamily};
use serde_json::Value;

/// A view of a Mistral.
pub type Mistral = Decoder<MistralFamily>;

/// How a Mistral's `config.json` is read.
#[derive(Debug, Clone, Copy)]
pub struct MistralFamily;

impl DecoderFamily for MistralFamily {
    const MODEL_TYPE: &'static str = "mistral";
    const ARCHITECTURE: &'static str = "MistralForCausalLM";

    fn config(json: &Value, place: &str) -> Result<DecoderConfig> {
        let f = Fields::new(json, place);
        f.absent("layer_types")?;
        let window = f.or_if_absent("sliding_window", Some(4096))?;
        let window = window.map(|w| f.positive("sliding_window", w)).transpose()?;
        Ok(DecoderConfig { sliding_window: window, ..DecoderConfig::read(&f, Some(8), 131_072)? })
    }
}
