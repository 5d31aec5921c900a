//! (IA)³: the weighted sum of the vectors.

use crate::error::{Error, Result};
use crate::methods::from_json;
use crate::peft::Peft;
use crate::peft::combine::{Arithmetic, Combination, NAME};
use crate::peft::to_lora::changes::Changes;
use crate::target::Names;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

/// `l = Σ wᵢ lᵢ`. Where an adapter has no vector, its is 1: it changes nothing there. (PEFT counts it as 0.)
pub(super) fn combine(peft: &mut Peft, new: &str, adapters: &[(&str, f64)], how: Combination) -> Result<()> {
    if how != Combination::Factors(Arithmetic::Linear) {
        let message = "(IA)³ adapters are combined by Factors(Linear) alone";
        return Err(Error::config(NAME, "combination_type", message));
    }
    let mut parts = Vec::new();
    for (name, w) in adapters {
        // The base's own weights that its file has beside are as the base has them, or in the way: that is said here.
        Changes::read(peft, name, false)?;
        let adapter = peft.adapter(name)?;
        let mut tensors = adapter.params.tensors();
        tensors.retain(|key, _| !adapter.carried.has(key));
        parts.push((*name, *w, tensors, peft.file(name)?));
    }
    let keys: BTreeSet<&String> = parts.iter().flat_map(|(_, _, tensors, _)| tensors.keys()).collect();
    let mut sums = BTreeMap::new();
    for key in keys {
        let owners: Vec<_> =
            parts.iter().filter_map(|(_, w, tensors, _)| Some((*w, tensors.get(key)?))).collect();
        let Some((_, first)) = owners.first() else { continue };
        if !key.ends_with("ia3_l") {
            if owners.len() > 1 {
                return Err(Error::config(
                    NAME,
                    "modules_to_save",
                    format!("two adapters both train `{key}`"),
                ));
            }
            sums.insert(key.clone(), first.shallow_clone());
            continue;
        }
        let own: f64 = owners.iter().map(|(w, _)| w).sum();
        let all: f64 = parts.iter().map(|(_, w, ..)| w).sum();
        let mut sum: Tensor = first.f_full_like(all - own)?;
        for (w, l) in owners {
            sum = sum.f_add(&l.f_mul_scalar(w)?)?;
        }
        sums.insert(key.clone(), sum);
    }
    let mut config = parts.first().map(|(.., config)| config.clone()).unwrap_or_default();
    for field in ["target_modules", "feedforward_modules", "modules_to_save"] {
        let mut union = BTreeSet::new();
        for (name, _, _, file) in &parts {
            match serde_json::from_value(file.get(field).cloned().unwrap_or_default()) {
                Ok(Some(Names::List(list))) => union.extend(list),
                Ok(None) => {}
                _ => {
                    let message = format!("that of `{name}` is a pattern; only lists can be combined");
                    return Err(Error::config(NAME, field, message));
                }
            }
        }
        if let (Some(value), false) = (config.get_mut(field), union.is_empty()) {
            *value = Value::from_iter(union);
        }
    }
    peft.add_with(new, from_json(config, "the new adapter")?, sums)
}
