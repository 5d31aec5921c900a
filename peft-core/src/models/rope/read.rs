//! How `config.json` says which frequencies there are.

use crate::error::Result;
use crate::io::Fields;
use crate::models::rope::{RopeConfig, RopeType};
use crate::warning::Warning;
use serde_json::{Map, Value};

/// What a rope dictionary of any type may say.
const ALL: &[&str] = &["rope_theta", "rope_type", "type", "partial_rotary_factor"];

/// The types, with what their dictionaries say beside that.
const TYPES: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("linear", &["factor"]),
    ("dynamic", &["factor"]),
    ("yarn", YARN),
    ("llama3", &["factor", "low_freq_factor", "high_freq_factor", ORIGINAL]),
];

const YARN: &[&str] = &[
    "factor",
    ORIGINAL,
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
];

/// What is said of a model's training, and is nobody's number.
const HISTORY: &[&str] = &["finetuned"];

const ORIGINAL: &str = "original_max_position_embeddings";

/// The rope dictionary of a `config.json`: `rope_parameters` (transformers 5), or `rope_scaling` (4).
struct Dictionary {
    field: &'static str,
    json: Value,
}

impl Dictionary {
    fn find(f: &Fields<'_>) -> Result<Self> {
        let mut field = "rope_scaling";
        let mut json = f.get::<Map<String, Value>>(field)?.filter(|rope| !rope.is_empty());
        if json.is_none() {
            field = "rope_parameters";
            json = f.get(field)?;
        }
        Ok(Self { field, json: Value::Object(json.unwrap_or_default()) })
    }

    fn kind(rope: &Fields<'_>) -> Result<String> {
        Ok(match rope.get("rope_type")? {
            Some(kind) => kind,
            None => rope.or("type", "default".to_owned())?,
        })
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.json.as_object().into_iter().flat_map(|rope| rope.keys().map(String::as_str))
    }
}

impl RopeConfig {
    /// Reads it; `positions` is the family's `max_position_embeddings` where the file does not say.
    pub(in crate::models) fn read(f: &Fields<'_>, head_dim: i64, positions: i64) -> Result<Self> {
        f.only("partial_rotary_factor", 1.0)?;
        let dictionary = Dictionary::find(f)?;
        let known = |key: &str| {
            ALL.contains(&key) || HISTORY.contains(&key) || TYPES.iter().any(|(_, keys)| keys.contains(&key))
        };
        if let Some(key) = dictionary.keys().find(|key| !known(key)) {
            return Err(f.wrong(dictionary.field, format!("`{key}` is not supported")));
        }
        let place = f.within(dictionary.field);
        let rope = Fields::new(&dictionary.json, &place);
        rope.only("partial_rotary_factor", 1.0)?;
        let theta = match rope.get("rope_theta")? {
            Some(theta) => theta,
            None => f.or("rope_theta", 10_000.0)?,
        };
        let theta = f.above_zero("rope_theta", theta)?;
        let factor = |field: &str| rope.above_zero(field, rope.need(field)?);
        let most =
            || f.above_zero("max_position_embeddings", f.or("max_position_embeddings", positions as f64)?);
        let kind = match Dictionary::kind(&rope)?.as_str() {
            "default" => RopeType::Default,
            "linear" => RopeType::Linear { factor: factor("factor")? },
            "dynamic" if head_dim <= 2 => {
                return Err(
                    rope.wrong("rope_type", format!("`dynamic` has no frequencies for heads of {head_dim}"))
                );
            }
            "dynamic" => RopeType::Dynamic { factor: factor("factor")?, original: most()? },
            "llama3" => RopeType::Llama3 {
                factor: factor("factor")?,
                low: factor("low_freq_factor")?,
                high: factor("high_freq_factor")?,
                original: original(f, &rope, most()?)?,
            },
            "yarn" if theta == 1.0 => return Err(f.wrong("rope_theta", "`yarn` has no frequencies for 1")),
            "yarn" => yarn(&rope, original(f, &rope, most()?)?, most()?)?,
            other => {
                let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
                let message = format!("`{other}` is not supported, only {} are", known.join(", "));
                return Err(rope.wrong("rope_type", message));
            }
        };
        Ok(Self { theta, kind })
    }

    /// What the dictionary says and its type has nothing for; transformers passes over it too.
    pub(in crate::models) fn passed_over(f: &Fields<'_>) -> Result<Vec<Warning>> {
        let dictionary = Dictionary::find(f)?;
        let place = f.within(dictionary.field);
        let rope = Fields::new(&dictionary.json, &place);
        let kind = Dictionary::kind(&rope)?;
        let own = TYPES.iter().find(|(name, _)| *name == kind).map_or(&[] as &[&str], |(_, keys)| keys);
        let others = dictionary.keys().filter(|key| !ALL.contains(key) && !own.contains(key));
        Ok(others.map(|key| rope.passed_over(key, format!("means nothing for the type `{kind}`"))).collect())
    }
}

/// The positions that the model was trained with before. The field beside the dictionary comes first.
fn original(f: &Fields<'_>, rope: &Fields<'_>, most: f64) -> Result<f64> {
    let length = match (f.get(ORIGINAL)?, rope.get(ORIGINAL)?) {
        (Some(length), _) | (None, Some(length)) => length,
        (None, None) => most,
    };
    rope.above_zero(ORIGINAL, length)
}

fn yarn(rope: &Fields<'_>, original: f64, most: f64) -> Result<RopeType> {
    // null is the ratio of the two lengths, and a missing one an error, as in transformers.
    let factor = match rope.json.get("factor") {
        Some(Value::Null) => most / original,
        _ => rope.above_zero("factor", rope.need("factor")?)?,
    };
    // For these, null and 0 are the default.
    let or = |field: &str, default: f64| -> Result<f64> {
        let value = rope.get(field)?.filter(|value| *value != 0.0).unwrap_or(default);
        rope.above_zero(field, value)
    };
    let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    let nonzero =
        |field: &str| -> Result<Option<f64>> { Ok(rope.get::<f64>(field)?.filter(|scale| *scale != 0.0)) };
    let attention_factor =
        match (rope.get("attention_factor")?, nonzero("mscale")?, nonzero("mscale_all_dim")?) {
            (Some(given), ..) => rope.above_zero("attention_factor", given)?,
            (None, Some(one), Some(all)) => scale(one) / scale(all),
            _ => scale(1.0),
        };
    let truncate = rope.or("truncate", true)?;
    let (fast, slow) = (or("beta_fast", 32.0)?, or("beta_slow", 1.0)?);
    Ok(RopeType::Yarn { factor, original, fast, slow, truncate, attention_factor })
}
