//! Llama: the plain decoder, as the Hub's `LlamaForCausalLM` has it.

use crate::error::Result;
use crate::io::fields::Fields;
use crate::models::decoder::{Decoder, DecoderConfig, DecoderFamily};
use serde_json::Value;

/// A view of a Llama.
pub type Llama = Decoder<LlamaFamily>;

/// How a Llama's `config.json` is read.
#[derive(Debug, Clone, Copy)]
pub struct LlamaFamily;

impl DecoderFamily for LlamaFamily {
    const MODEL_TYPE: &'static str = "llama";
    const ARCHITECTURE: &'static str = "LlamaForCausalLM";

    fn config(json: &Value, place: &str) -> Result<DecoderConfig> {
        let f = Fields::new(json, place);
        let bias = f.or("attention_bias", false)?;
        Ok(DecoderConfig {
            qkv_bias: bias,
            output_bias: bias,
            mlp_bias: f.or("mlp_bias", false)?,
            ..DecoderConfig::read(&f, None, 2048)?
        })
    }
}
