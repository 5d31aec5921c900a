//! Mistral: the plain decoder with grouped key heads and a sliding window, as the Hub's `MistralForCausalLM` has it.
//! Jiang et al. 2023, <https://arxiv.org/abs/2310.06825>.

use crate::error::Result;
use crate::io::Fields;
use crate::models::decoder::DecoderConfig;
use crate::models::hub_model::Family;
use crate::seam::TaskType;
use serde_json::Value;

/// Mistrals of the Hub.
pub static FAMILY: Family = Family {
    model_type: "mistral",
    class: "MistralForCausalLM",
    task: TaskType::CausalLm,
    describe: |json, place, _| config(json, place)?.described(place),
};

/// Its `config.json`.
///
/// # Errors
/// A field that is missing or malformed, or that asks for something this crate does not have.
pub fn config(json: &Value, place: &str) -> Result<DecoderConfig> {
    let f = Fields::new(json, place);
    f.absent("layer_types")?;
    let window = f.or_if_absent("sliding_window", Some(4096))?;
    let window = window.map(|w| f.positive("sliding_window", w)).transpose()?;
    Ok(DecoderConfig { sliding_window: window, ..DecoderConfig::read(&FAMILY, &f, Some(8), 131_072)? })
}
