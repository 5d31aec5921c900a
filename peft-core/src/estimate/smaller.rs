//! The same architecture in small: of fewer layers, of less width.

use crate::error::{Error, Result};
use crate::models::family;
use crate::run::Architecture;
use serde_json::Value;
use std::sync::Arc;

/// The fields of `config.json` that say how many layers there are.
const LAYERS: &[&str] = &["num_hidden_layers", "n_layer"];
/// Those that say how wide something is. Heads become narrower, and stay as many.
const WIDTHS: &[&str] = &["hidden_size", "n_embd", "intermediate_size", "n_inner", "head_dim", "vocab_size"];

/// The architecture with another number of layers.
pub(super) fn of_layers(own: &Arc<dyn Architecture>, layers: i64) -> Result<Arc<dyn Architecture>> {
    if own.dims().transformer.is_some_and(|sizes| sizes.layers == layers) {
        return Ok(own.clone());
    }
    changed(own, |field, number| if LAYERS.contains(&field) { layers } else { number })
}

/// The architecture `part/whole` as wide. `None` where that is no such model: a width that cannot be divided, or one that
/// does not follow from the fields that are known here.
pub(super) fn of_width(own: &Arc<dyn Architecture>, part: i64, whole: i64) -> Option<Arc<dyn Architecture>> {
    let scaled = |width: i64| width.checked_mul(part)?.checked_add(whole.checked_sub(1)?)?.checked_div(whole);
    let sizes = own.dims().transformer?;
    let vocab = scaled(sizes.vocab)?;
    let smaller = changed(own, |field, number| match field {
        width if WIDTHS.contains(&width) => scaled(number).unwrap_or(number),
        id if id.ends_with("_token_id") => number.min(vocab.saturating_sub(1)),
        _ => number,
    });
    let smaller = smaller.ok()?;
    let found = smaller.dims().transformer?;
    let exact = |was: i64, is: i64| was.checked_mul(part) == is.checked_mul(whole);
    let alike = exact(sizes.hidden, found.hidden)
        && exact(sizes.head_dim, found.head_dim)
        && sizes.heads == found.heads
        && sizes.kv_heads == found.kv_heads
        && found.vocab == vocab;
    alike.then_some(smaller)
}

/// The architecture of a `config.json` in which numbers are others.
fn changed(own: &Arc<dyn Architecture>, number: impl Fn(&str, i64) -> i64) -> Result<Arc<dyn Architecture>> {
    let wrong = || Error::config(own.dims().model(), "plan", "has no config.json to be made smaller");
    let mut json = own.json().ok_or_else(wrong)?;
    for (field, value) in json.as_object_mut().ok_or_else(wrong)? {
        let each = match value {
            Value::Array(all) => all.iter_mut().collect(),
            value => vec![value],
        };
        for value in each {
            if let Some(was) = value.as_i64() {
                *value = number(field, was).into();
            }
        }
    }
    Ok(family(&json, "plan")?.describe(&json, "plan", None)?.0)
}
