//! Fields of a configuration, as `--set field=value` gives them.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::str::FromStr;

/// `field=value`. The value is JSON where it is any (`16`, `true`, `null`, `["q_proj"]`); otherwise a string, or with commas
/// in it a list: `q_proj,v_proj`.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: String,
    pub value: Value,
}

impl FromStr for Field {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').context("expected field=value")?;
        ensure!(!name.trim().is_empty(), "expected field=value");
        let name = name.trim().to_owned();
        let value = match value_of(value.trim()) {
            Value::String(one) if name.ends_with("modules") || name == "modules_to_save" => names(one),
            other => other,
        };
        Ok(Self { name, value })
    }
}

/// A module's name is a list of one: PEFT takes a string for a pattern of whole paths, and a name alone never is one.
fn names(text: String) -> Value {
    let plain = text.chars().all(|c| c.is_alphanumeric() || "_-".contains(c)) && text != "all-linear";
    if plain { vec![text].into() } else { text.into() }
}

fn value_of(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if text.contains(',') && !text.starts_with(['[', '{', '"']) => {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(value_of).collect()
        }
        Err(_) => text.into(),
    }
}

/// The fields as an object; one that is set twice is an error.
pub fn map(fields: &[Field]) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    for Field { name, value } in fields {
        if all.insert(name.clone(), value.clone()).is_some() {
            bail!("--set {name}: it is set twice");
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_typed() {
        let value = |text: &str| text.parse::<Field>().unwrap().value;
        assert_eq!(value("r=16"), json!(16));
        assert_eq!(value("use_dora=true"), json!(true));
        assert_eq!(value("init_lora_weights=pissa"), json!("pissa"));
        assert_eq!(value("target_modules=q_proj,v_proj"), json!(["q_proj", "v_proj"]));
        assert_eq!(value("target_modules=q_proj,"), json!(["q_proj"]));
        assert_eq!(value("target_modules=\"a{1,2}\""), json!("a{1,2}"));
        assert_eq!(value("target_modules=v_proj"), json!(["v_proj"]));
        assert_eq!(value("target_modules=all-linear"), json!("all-linear"));
        assert_eq!(value("target_modules=.*v_proj"), json!(".*v_proj"));
        assert_eq!(value("token_indices=3,4"), json!([3, 4]));
        assert!("r".parse::<Field>().is_err() && "=3".parse::<Field>().is_err());
        assert!(map(&["r=1".parse().unwrap(), "r=2".parse().unwrap()]).is_err());
    }
}
