//! What a training says of errors and evaluations.

use crate::recipe::Settings;
use crate::training::setup::ADAPTER;
use anyhow::Result;
use peft_core::train::Evaluation;
use peft_core::{Error, Peft};
use std::path::PathBuf;

/// How many rows are named.
const SHOWN: usize = 16;

/// What went wrong, with which rows of the file, and from where one can go on. `origin` has, for each row that is trained on,
/// the rows of the file that it is made of.
pub fn located(
    error: &Error,
    origin: &[Vec<usize>],
    settings: &Settings,
    checkpoint: Option<PathBuf>,
) -> String {
    let rows = match error {
        Error::NonFinite { rows, .. } | Error::Masked { rows } => rows.as_slice(),
        _ => &[],
    };
    let numbers = rows.iter().filter_map(|row| origin.get(*row)).flatten();
    let numbers: Vec<String> = numbers.take(SHOWN).map(usize::to_string).collect();
    let mut text = error.to_string();
    if !numbers.is_empty() {
        let data = settings.data.display();
        text = format!("{text}; of {data} these are rows {} (from 1)", numbers.join(", "));
    }
    match checkpoint {
        Some(path) => format!("{text}; the last good checkpoint is {}", path.display()),
        None => format!("{text}; there is no checkpoint yet"),
    }
}

/// "loss 0.4213, accuracy 0.9100".
pub fn sentence(evaluation: &Evaluation) -> String {
    let figures = evaluation.metrics.iter().map(|(name, value)| format!(", {name} {value:.4}"));
    format!("loss {:.4}{}", evaluation.loss, figures.collect::<String>())
}

/// What to say of a method that is told how many steps there are (AdaLoRA prunes by it), and is told another number.
pub fn other_total(peft: &Peft, total: u64) -> Result<Option<String>> {
    let config = peft.adapter_config(ADAPTER)?.unwrap_or_default();
    let said = config.get("total_step").and_then(|said| said.as_u64());
    Ok(said.filter(|said| *said != total).map(|said| {
        format!("total_step: is {said}, and the run takes {total} steps; the method goes by it: --set total_step={total}")
    }))
}
