//! Goldens of several adapters over one base: alone, summed, in the rows of one batch, and combined into one.

use crate::parity::Errors;
use crate::{golden_tensors, relative_error};
use anyhow::{Context, Result};
use peft_core::combine::{Combination, MajoritySign, Settings};
use peft_core::{Batch, Model, Pass, Peft, io};
use serde_json::Value;
use std::path::Path;

/// Worst relative error of the logits of everything that the folder has: `logits.a`, `logits.a+b`,
/// `logits.mixed_a_b_base`, `logits.disabled`, `logits.w_<combination>`.
pub fn compare(peft: &mut Peft, dir: &Path, method: &str) -> Result<Errors> {
    let g = golden_tensors(dir)?;
    let meta = io::read_json(dir.join("meta.json"))?;
    for name in ["a", "b"] {
        peft.load(name, dir.join(name))?;
    }
    let get = |key: &str| g.get(key).with_context(|| format!("the golden has no `{key}`"));
    let batch = Batch::masked(get("input_ids")?.copy(), get("attention_mask")?.copy());
    let mut e = Errors { method: method.to_owned(), ..Errors::default() };
    for (key, expected) in &g {
        let Some(what) = key.strip_prefix("logits.") else { continue };
        let view = match what {
            "disabled" => peft.view(&[])?,
            "mixed_a_b_base" => peft.view_rows(&[Some("a"), Some("b"), None])?,
            _ => match what.strip_prefix("w_") {
                Some(name) => {
                    let weights = |i: usize| meta["combos"][name]["weights"][i].as_f64().context("weights");
                    peft.combine(
                        what,
                        &[("a", weights(0)?), ("b", weights(1)?)],
                        how(&meta["combos"][name])?,
                    )?;
                    peft.view(&[what])?
                }
                None => peft.view(&what.split('+').collect::<Vec<_>>())?,
            },
        };
        let error = relative_error(&view.forward(&batch, Pass::eval())?, expected).context(key.clone())?;
        e.base = if what == "disabled" { error } else { e.base };
        e.logits = e.logits.max(error);
    }
    Ok(e)
}

/// A combination by PEFT's arguments.
pub fn how(combo: &Value) -> Result<Combination> {
    let sign = |s: &Value| if s == "frequency" { MajoritySign::Frequency } else { MajoritySign::Total };
    let settings = Settings {
        density: combo["density"].as_f64(),
        majority_sign_method: combo.get("majority_sign_method").map(sign),
        svd_rank: combo["svd_rank"].as_i64(),
        svd_clamp: None,
    };
    Ok(Combination::named(combo["combination_type"].as_str().context("combination_type")?, settings)?)
}
