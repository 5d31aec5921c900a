//! What a model is for.

use crate::recipe::Kind;
use crate::source::Source;
use anyhow::{Result, bail};
use peft_core::hub;
use peft_core::io::read_json;
use serde_json::Value;
use std::path::Path;

/// What a model is for: what was asked, if it can be had; or next tokens where it is causal, a number where it has a head
/// for one, and else classes. `outputs` is how many its head has, where that is known better than from its `config.json`.
pub fn kind(
    asked: Option<Kind>,
    model: &Source,
    dir: &Path,
    causal: bool,
    outputs: Option<i64>,
) -> Result<Kind> {
    match (asked, causal) {
        (None | Some(Kind::Causal), true) => Ok(Kind::Causal),
        (Some(Kind::Causal), false) => {
            bail!("--task causal: {} is an encoder, for classes or regression", model.name())
        }
        (Some(_), true) => bail!("--task: {} is a model of next tokens, expected causal", model.name()),
        (Some(kind), false) => Ok(kind),
        (None, false) => {
            let config = read_json(dir.join(hub::CONFIG))?;
            let said = config.get("problem_type").and_then(Value::as_str);
            let one = config.get("num_labels") == Some(&Value::from(1))
                || config.get("id2label").and_then(Value::as_object).is_some_and(|all| all.len() == 1);
            let own = said.map_or(one, |said| said == "regression");
            let regression = outputs.map_or(own, |outputs| outputs == 1);
            Ok(if regression { Kind::Regression } else { Kind::Classes })
        }
    }
}
