//! Qwen2: the plain decoder with biases of q, k and v, as the Hub's `Qwen2ForCausalLM` has it. Yang et al. 2024,
//! <https://arxiv.org/abs/2407.10671>.

use crate::error::Result;
use crate::io::Fields;
use crate::models::decoder::{DecoderConfig, Windowed};
use crate::models::hub_model::Family;
use crate::seam::TaskType;
use serde_json::Value;

/// Qwen2s of the Hub.
pub static FAMILY: Family = Family {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    task: TaskType::CausalLm,
    describe: |json, place, _| config(json, place)?.described(place),
};

/// Its `config.json`.
///
/// # Errors
/// A field that is missing or malformed, or that asks for something this crate does not have.
pub fn config(json: &Value, place: &str) -> Result<DecoderConfig> {
    let f = Fields::new(json, place);
    let c = DecoderConfig::read(&FAMILY, &f, Some(32), 32_768)?;
    let sliding_window = match f.or("use_sliding_window", false)? {
        true => f.or_if_absent("sliding_window", Some(4096))?,
        false => None,
    };
    let sliding_window = sliding_window.map(|w| f.positive("sliding_window", w)).transpose()?;
    let windowed = windowed(&f, c.num_hidden_layers, sliding_window.is_some())?;
    Ok(DecoderConfig { qkv_bias: true, sliding_window, windowed, ..c })
}

/// `layer_types` says which layers have a window, or else those from `max_window_layers` on do.
fn windowed(f: &Fields<'_>, layers: i64, window: bool) -> Result<Windowed> {
    let Some(types) = f.get::<Vec<String>>("layer_types")? else {
        return Ok(Windowed::From(f.or("max_window_layers", 28)?));
    };
    if i64::try_from(types.len()) != Ok(layers) {
        return Err(f.wrong("layer_types", format!("names {} layers of {layers}", types.len())));
    }
    let of = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(false),
        "sliding_attention" if window => Ok(true),
        "sliding_attention" => {
            Err(f.wrong("layer_types", "`sliding_attention` without a sliding_window in use"))
        }
        other => {
            let known = "only full_attention and sliding_attention are";
            Err(f.wrong("layer_types", format!("`{other}` is not supported, {known}")))
        }
    };
    Ok(Windowed::Each(types.iter().map(of).collect::<Result<_>>()?))
}
