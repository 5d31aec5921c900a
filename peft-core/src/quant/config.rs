//! How a base is quantised, and transformers' `quantization_config` that says so in `config.json`.

use crate::error::{Error, Result};
use serde_json::{Value, json};
use tch::Kind;

/// Which weights of a base become NF4, a format of 4 bits, and how; the defaults are those of transformers'
/// `BitsAndBytesConfig`.
///
/// All linear layers become NF4, except the output layer (and one that is tied to the word embedding).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nf4Config {
    /// Whether the scales of the blocks are quantised, too, to 8 bits; `bnb_4bit_use_double_quant` in files.
    pub double_quant: bool,
    /// The dtype that products with the weights are computed in; `bnb_4bit_compute_dtype` in files.
    pub compute: Kind,
    /// Further layers that stay dense: each entry is a regular expression for the start of a layer's name, up to a dot, or
    /// the end of its name; `llm_int8_skip_modules` in files.
    pub skip_modules: Vec<String>,
}

impl Default for Nf4Config {
    fn default() -> Self {
        Self { double_quant: false, compute: Kind::Float, skip_modules: Vec::new() }
    }
}

/// Name of the field in `config.json`.
pub(crate) const FIELD: &str = "quantization_config";

/// The dtypes that files name.
pub(crate) const DTYPES: [(&str, Kind); 3] =
    [("float32", Kind::Float), ("bfloat16", Kind::BFloat16), ("float16", Kind::Half)];

pub(super) fn dtype(name: &str) -> Option<Kind> {
    DTYPES.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind)
}

pub(super) fn dtype_name(kind: Kind) -> &'static str {
    DTYPES.iter().find(|(_, k)| *k == kind).map_or("float32", |(n, _)| n)
}

impl Nf4Config {
    /// Reads `quantization_config`. The layers that it skips are not read: the file's tensors say it.
    ///
    /// # Errors
    /// Another method than bitsandbytes' NF4, and fields of it that are not known here, by name.
    pub(crate) fn from_json(json: &Value, place: &str) -> Result<Self> {
        let wrong =
            |field: &str, message: String| Err(Error::config(place, format!("{FIELD}.{field}"), message));
        let mut config = Self::default();
        let Some(fields) = json.as_object() else {
            return Err(Error::config(place, FIELD, format!("{json} is not an object")));
        };
        // In this order: other methods have other fields.
        let only: [(&str, Value); 3] = [
            ("quant_method", "bitsandbytes".into()),
            ("load_in_8bit", false.into()),
            ("bnb_4bit_quant_type", "nf4".into()),
        ];
        for (field, only) in only {
            let found =
                fields.get(field).unwrap_or(if field == "load_in_8bit" { &only } else { &Value::Null });
            if *found != only {
                let hint = "quantise the dense model as it is opened (Options::quantise)";
                return wrong(field, format!("{found} is not supported, only {only} is: {hint}"));
            }
        }
        for (field, value) in fields {
            match (field.as_str(), value) {
                ("load_in_4bit" | "_load_in_4bit", Value::Bool(true)) => {}
                ("load_in_8bit" | "_load_in_8bit", Value::Bool(false)) => {}
                ("bnb_4bit_use_double_quant", Value::Bool(double)) => config.double_quant = *double,
                ("bnb_4bit_compute_dtype", Value::String(name)) => match dtype(name) {
                    Some(kind) => config.compute = kind,
                    None => return wrong(field, format!("`{name}` is not float32, bfloat16 or float16")),
                },
                // How bytes are packed into a file's tensors, which is read off them; what concerns 8 bits alone.
                ("quant_method" | "bnb_4bit_quant_type" | "bnb_4bit_quant_storage", _) => {}
                (other, _) if other.starts_with("llm_int8_") => {}
                (other, value) => return wrong(other, format!("{value} is not supported")),
            }
        }
        Ok(config)
    }

    /// `quantization_config` as transformers writes it, for a model whose layers `skipped` are dense.
    pub(crate) fn to_json(&self, skipped: Option<&[String]>) -> Value {
        let compute = dtype_name(self.compute);
        json!({
            "_load_in_4bit": true,
            "_load_in_8bit": false,
            "bnb_4bit_compute_dtype": compute,
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.double_quant,
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": skipped,
            "llm_int8_threshold": 6.0,
            "load_in_4bit": true,
            "load_in_8bit": false,
            "quant_method": "bitsandbytes"
        })
    }
}
