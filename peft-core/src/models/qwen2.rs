//! Qwen2: the plain decoder with biases of q, k and v, as the Hub's `Qwen2ForCausalLM` has it. Yang et al. 2024,
//! <https://arxiv.org/abs/2407.10671>.

use super::decoder::{Decoder, DecoderConfig, DecoderFamily};
use super::fields::Fields;
use crate::Result;
use serde_json::Value;

/// A view of a Qwen2.
pub type Qwen2 = Decoder<Qwen2Family>;

/// How a Qwen2's `config.json` is read.
#[derive(Debug, Clone, Copy)]
pub struct Qwen2Family;

impl DecoderFamily for Qwen2Family {
    const MODEL_TYPE: &'static str = "qwen2";
    const ARCHITECTURE: &'static str = "Qwen2ForCausalLM";

    fn config(json: &Value, place: &str) -> Result<DecoderConfig> {
        let f = Fields::new(json, place);
        let c = DecoderConfig::read(&f, Some(32))?;
        Ok(DecoderConfig { qkv_bias: true, windows: windows(&f, c.num_hidden_layers)?, ..c })
    }
}

/// The window of each layer: where `use_sliding_window` is on, `layer_types` says which layers have one, or else the
/// layers from `max_window_layers` on do.
fn windows(f: &Fields<'_>, layers: i64) -> Result<Vec<Option<i64>>> {
    let window = match f.or("use_sliding_window", false)? {
        true => f.or_if_absent("sliding_window", Some(4096))?,
        false => None,
    };
    let window = window.map(|w| f.positive("sliding_window", w)).transpose()?;
    let Some(types) = f.get::<Vec<String>>("layer_types")? else {
        let full: i64 = f.or("max_window_layers", 28)?;
        return Ok((0..layers).map(|i| window.filter(|_| i >= full)).collect());
    };
    if i64::try_from(types.len()) != Ok(layers) {
        let message = format!("names {} layers of {layers}", types.len());
        return Err(f.wrong("layer_types", message));
    }
    let of = |kind: &String| match (kind.as_str(), window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(window)) => Ok(Some(window)),
        ("sliding_attention", None) => {
            Err(f.wrong("layer_types", "`sliding_attention` without a sliding_window in use"))
        }
        (other, _) => {
            let message =
                format!("`{other}` is not supported, only full_attention and sliding_attention are");
            Err(f.wrong("layer_types", message))
        }
    };
    types.iter().map(of).collect()
}
