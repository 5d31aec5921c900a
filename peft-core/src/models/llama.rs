//! Llama: the plain decoder, as the Hub's `LlamaForCausalLM` has it.

use crate::error::Result;
use crate::io::Fields;
use crate::models::decoder::DecoderConfig;
use crate::models::hub_model::Family;
use crate::seam::TaskType;
use serde_json::Value;

/// Llamas of the Hub.
pub static FAMILY: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    task: TaskType::CausalLm,
    describe: |json, place, _| config(json, place)?.described(place),
};

/// Its `config.json`.
///
/// # Errors
/// A field that is missing or malformed, or that asks for something this crate does not have.
pub fn config(json: &Value, place: &str) -> Result<DecoderConfig> {
    let f = Fields::new(json, place);
    let bias = f.or("attention_bias", false)?;
    Ok(DecoderConfig {
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: f.or("mlp_bias", false)?,
        ..DecoderConfig::read(&FAMILY, &f, None, 2048)?
    })
}
