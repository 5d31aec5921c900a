//! The dtype of a model, and whether its numbers are any.

use crate::warning::Warning;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

const FLOATS: &[(Kind, &str)] = &[
    (Kind::Float, "float32"),
    (Kind::BFloat16, "bfloat16"),
    (Kind::Half, "float16"),
    (Kind::Double, "float64"),
];

/// What `config.json` calls a dtype of floats.
pub(crate) fn dtype(kind: Kind) -> Option<&'static str> {
    FLOATS.iter().find(|(k, _)| *k == kind).map(|(_, name)| *name)
}

/// The dtype that all floats are cast to: the one that is `asked` for; else none, so that each keeps its own, unless they
/// are of several: no layer computes with those, and transformers casts them all to what `config.json` says. `words` is
/// the word embedding. And what is to be said.
pub(crate) fn of_all(
    (json, place): (&Value, &str),
    words: &str,
    tensors: &BTreeMap<String, Tensor>,
    asked: Option<Kind>,
) -> (Option<Kind>, Option<Warning>) {
    let named = ["dtype", "torch_dtype"].into_iter().find_map(|field| {
        let name = json.get(field)?.as_str()?;
        Some((field, name))
    });
    let (None, Some((field, named))) = (asked, named) else { return (asked, None) };
    let stored: BTreeSet<&str> = tensors.values().filter_map(|t| dtype(t.kind())).collect();
    let all = FLOATS.iter().find(|(_, name)| *name == named).filter(|_| stored.len() > 1);
    if let Some((kind, _)) = all {
        let stored: Vec<&str> = stored.into_iter().collect();
        let message =
            format!("says {named}, and the tensors are {}: all become {named}", stored.join(" and "));
        return (Some(*kind), Some(Warning::new(place, field, message)));
    }
    let stored = tensors.get(words).and_then(|t| dtype(t.kind())).filter(|stored| *stored != named);
    let warning = stored.map(|stored| {
        let message =
            format!("says {named}, and the tensors are {stored}: they stay so, unless another is asked for");
        Warning::new(place, field, message)
    });
    (None, warning)
}
