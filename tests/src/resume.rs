//! A run that is stopped, saved and gone on with in another process, for every row of the table.

use crate::subject::{Subject, fresh};
use crate::table::Row;
use anyhow::{Context, Result};
use peft_core::train::{AdamConfig, Recipe, Run, Schedule, Task, cross_entropy, next_token_loss};
use peft_core::{Batch, Peft};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Steps before the run is stopped, in the middle of the second epoch.
pub const BEFORE: usize = 4;
/// Steps after it.
pub const AFTER: usize = 4;
/// Steps have four rows, computed three and one.
const BATCH: usize = 4;
const AT_ONCE: usize = 3;
const ROWS: usize = 10;

/// A subject's batch as rows: the four it has, and six with other tokens.
#[derive(Debug)]
pub struct Rows {
    ids: Tensor,
    mask: Option<Tensor>,
    labels: Tensor,
    causal: bool,
}

impl Rows {
    pub fn of<M: Subject>() -> Result<Self> {
        let (batch, labels) = M::batch()?;
        let rows: Vec<i64> = (0..ROWS as i64).map(|row| row % 4).collect();
        let pick = |t: &Tensor| t.index_select(0, &Tensor::from_slice(&rows));
        // Tokens of one row in another's places: none is beyond the vocabulary.
        let ids = pick(batch.ids()?);
        let shifted =
            Tensor::stack(&(0..ROWS as i64).map(|r| ids.get(r).roll([r / 4], [0])).collect::<Vec<_>>(), 0);
        Ok(Self {
            ids: shifted,
            mask: batch.mask.as_ref().map(pick),
            labels: pick(&labels),
            causal: M::sizes().causal,
        })
    }
}

impl Task for Rows {
    fn rows(&self) -> usize {
        ROWS
    }

    fn batch(&self, rows: &[usize], _: Device) -> peft_core::Result<(Batch, Tensor)> {
        let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let rows = Tensor::from_slice(&rows);
        let pick = |t: &Tensor| t.index_select(0, &rows);
        let batch = Batch { mask: self.mask.as_ref().map(pick), ..Batch::dense(pick(&self.ids)) };
        Ok((batch, pick(&self.labels)))
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> peft_core::Result<Option<(Tensor, f64)>> {
        let weight = f64::try_from(labels.ne(-100).sum(Kind::Float))?;
        let loss =
            if self.causal { next_token_loss(output, labels)? } else { cross_entropy(output, labels)? };
        Ok(Some((loss, weight)))
    }
}

/// The model with a row's adapter, and a run of it; always the same.
pub fn begin<M: Subject>(row: &Row) -> Result<(Peft, Run)> {
    let peft = fresh::<M>(&row.config)?;
    let recipe = Recipe {
        optim: AdamConfig::default().into(),
        lr: 1e-2,
        schedule: Schedule::Linear { warmup: 2, total: 12 },
        batch: BATCH,
        micro_batch: Some(AT_ONCE),
        seed: 5,
        ..Recipe::default()
    };
    let run = Run::new(&peft, &["a"], &recipe, Rows::of::<M>()?)?;
    Ok((peft, run))
}

/// The adapter's tensors, as they are.
pub fn weights(peft: &Peft) -> Result<BTreeMap<String, Tensor>> {
    let all = peft.params("a")?.tensors().into_iter();
    Ok(all.map(|(name, t)| (name, t.detach().copy())).collect())
}

/// Where a row's run is saved.
pub fn place<M: Subject>(root: &Path, row: &Row) -> PathBuf {
    let name: String = row.name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    root.join(format!("{}-{name}", M::NAME))
}

/// What the weights are called that the other process ends with.
pub const END: &str = "end.safetensors";

/// What the other process does for a row: takes up the run, and goes to its end.
pub fn go_on<M: Subject>(root: &Path, row: &Row) -> Result<()> {
    let dir = place::<M>(root, row);
    let (peft, mut run) = begin::<M>(row)?;
    run.load(&dir)?;
    for _ in 0..AFTER {
        run.step()?;
    }
    peft_core::io::tensors::write(dir.join(END), &weights(&peft)?).context("the end")
}
