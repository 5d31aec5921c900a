//! What a training will hold in memory.

use crate::recipe::Settings;
use crate::training::data::About;
use anyhow::{Context, Result};
use peft_core::estimate::{Blueprint, Optimizer, Plan, Setup, Shape, Storage};
use peft_core::tch::Kind;
use peft_core::{Error, Peft, TaskType};

/// What the training holds at its worst; `None` where that is not known, as for layers that are computed again.
///
/// # Errors
/// A model whose step cannot be tried out on a small one of its kind.
pub fn forecast(peft: &Peft, s: &Settings, about: &About) -> Result<Option<Plan>> {
    if s.recompute.is_some() {
        return Ok(None);
    }
    let dims = &peft.outline().dims;
    let stored = dims.word_embedding().and_then(|name| peft.base().kind(name)).unwrap_or(Kind::Float);
    let base = match s.nf4 {
        true => Storage::Nf4 { config: Default::default(), rest: stored },
        false => Storage::Dense(stored),
    };
    let task = if dims.causal() { TaskType::CausalLm } else { TaskType::SeqCls };
    let method = || s.method.config(task, "", None).map_err(|e| Error::Input(format!("{e:#}")));
    let rows = s.micro_batch.unwrap_or(s.batch).min(s.batch).min(about.rows);
    let shape = Shape { batch: i64::try_from(rows)?, length: i64::try_from(about.longest)? };
    let setup = Setup { base, optimizer: Optimizer::Adam };
    Ok(Some(Blueprint::like(peft)?.plan(method, &setup, shape).context("memory")?))
}
