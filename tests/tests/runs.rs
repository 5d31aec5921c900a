//! A run: batches in parts, rows of which nothing counts, numbers that are no numbers, memory that runs out.

use anyhow::{Context, Result, ensure};
use peft_core::device::limit_memory;
use peft_core::methods::LoraConfig;
use peft_core::models::TinyConfig;
use peft_core::train::{Order, Recipe, Run, Task, cross_entropy};
use peft_core::{Batch, Error, Peft};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tests::{assert_bits, assert_close};

const ROWS: usize = 24;

/// Rows of six tokens; how many labels of a row count differs, and is 0 for the rows in `masked`.
#[derive(Debug)]
struct Data {
    masked: Vec<usize>,
    /// The row whose loss is no number.
    broken: Option<usize>,
}

impl Data {
    fn whole() -> Self {
        Self { masked: Vec::new(), broken: None }
    }
}

impl Task for Data {
    fn rows(&self) -> usize {
        ROWS
    }

    fn length(&self, row: usize) -> usize {
        row % 5 + 1
    }

    fn batch(&self, rows: &[usize], _: Device) -> peft_core::Result<(Batch, Tensor)> {
        let ids: Vec<i64> =
            rows.iter().flat_map(|row| (0..6).map(move |i| ((row * 7 + i * 3) % 50) as i64)).collect();
        // Class, weight: a row counts as often as it is long.
        let labels: Vec<f32> = rows
            .iter()
            .flat_map(|row| {
                let weight = if self.masked.contains(row) { 0.0 } else { self.length(*row) as f32 };
                [(row % 3) as f32, if self.broken == Some(*row) { f32::NAN } else { weight }]
            })
            .collect();
        let ids = Tensor::from_slice(&ids).view([-1, 6]);
        Ok((Batch::dense(ids), Tensor::from_slice(&labels).view([-1, 2])))
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> peft_core::Result<Option<(Tensor, f64)>> {
        let (classes, weights) = (labels.select(1, 0).to_kind(Kind::Int64), labels.select(1, 1));
        let all = f64::try_from(weights.nan_to_num(1.0, None, None).sum(Kind::Double))?;
        if all == 0.0 {
            return Ok(None);
        }
        let rows = (0..classes.size()[0]).map(|row| {
            let loss = cross_entropy(&output.narrow(0, row, 1), &classes.narrow(0, row, 1))?;
            Ok(loss * weights.narrow(0, row, 1).sum(Kind::Float))
        });
        let rows = rows.collect::<peft_core::Result<Vec<_>>>()?;
        Ok(Some((Tensor::stack(&rows, 0).sum(Kind::Float) / all, all)))
    }
}

fn peft() -> Result<Peft> {
    tch::manual_seed(7);
    let config = TinyConfig { vocab: 50, hidden: 32, layers: 2, heads: 4, ffn: 48, classes: 3 };
    let mut peft = Peft::new(config.init(Device::Cpu)?, config)?;
    tch::manual_seed(1);
    peft.add("a", LoraConfig::new(4).targets(["ff.0", "out_proj"]))?;
    Ok(peft)
}

fn recipe(micro_batch: usize) -> Recipe {
    Recipe { lr: 1e-2, batch: 8, micro_batch: Some(micro_batch), ..Recipe::default() }
}

fn weights(peft: &Peft) -> Result<BTreeMap<String, Tensor>> {
    Ok(peft.params("a")?.tensors().into_iter().map(|(name, t)| (name, t.detach().copy())).collect())
}

/// Catches a mean of the parts' means: they count differently much.
#[test]
fn parts_are_weighted_by_what_counts_in_them() -> Result<()> {
    let _serial = tests::serial();
    for micro in [1, 3, 5] {
        let parted = peft()?;
        let mut run = Run::new(&parted, &["a"], &recipe(micro), Data::whole())?;
        let same = peft()?;
        let one = Run::new(&same, &["a"], &recipe(8), Data::whole())?.step()?;
        let parts = run.step()?;
        ensure!((one.loss - parts.loss).abs() < 1e-6 * one.loss, "{one:?} {parts:?}");
        ensure!(one.learned == parts.learned && one.rows == parts.rows, "{one:?} {parts:?}");
        let norms = one.grad_norm.zip(parts.grad_norm).context("norms")?;
        ensure!((norms.0 - norms.1).abs() < 1e-6 * norms.0, "{norms:?}");
        let found: BTreeMap<_, _> =
            parted.trainable(&["a"])?.into_iter().map(|(n, p)| (n, p.grad())).collect();
        for (name, p) in same.trainable(&["a"])? {
            if f64::try_from(p.grad().abs().max())? > 0.0 {
                assert_close(&name, &found[&name], &p.grad(), 1e-6)?;
            }
        }
    }
    Ok(())
}

#[test]
fn parts_without_labels_are_passed_over_and_counted() -> Result<()> {
    let _serial = tests::serial();
    let order = Recipe { order: Order::AsIs, ..recipe(2) };
    let some = peft()?;
    let step = Run::new(&some, &["a"], &order, Data { masked: vec![2, 3, 5], broken: None })?.step()?;
    ensure!(step.skipped == 1 && step.rows.len() == 8, "{step:?}");

    let none = peft()?;
    let before = weights(&none)?;
    let mut run = Run::new(&none, &["a"], &order, Data { masked: (0..8).collect(), broken: None })?;
    let error = run.step().err().context("there is nothing to learn")?;
    ensure!(matches!(&error, Error::Masked { rows } if rows == &(0..8).collect::<Vec<_>>()), "{error}");
    ensure!(error.to_string().contains("of rows 0, 1, 2"), "{error}");
    ensure!(run.steps() == 0 && run.epoch() == 0.0);
    weights(&none)?.iter().try_for_each(|(name, t)| assert_bits(name, t, &before[name]))
}

/// Catches a state that is half updated, and a place in the data that is lost.
#[test]
fn a_step_that_fails_changes_nothing() -> Result<()> {
    let _serial = tests::serial();
    let order = Recipe { order: Order::AsIs, ..recipe(2) };
    let broken = peft()?;
    let mut run = Run::new(&broken, &["a"], &order, Data { masked: Vec::new(), broken: Some(13) })?;
    run.step()?;
    let before = weights(&broken)?;
    let error = run.step().err().context("a loss that is no number")?;
    let rows: Vec<usize> = (8..16).collect();
    ensure!(matches!(&error, Error::NonFinite { step: 2, rows: r, .. } if *r == rows), "{error}");
    ensure!(run.steps() == 1 && run.rows_ahead() == rows, "{:?}", run.rows_ahead());
    weights(&broken)?.iter().try_for_each(|(name, t)| assert_bits(name, t, &before[name]))
}

/// Catches random numbers that a failed attempt has used up: the batch in parts from the start is the same to the bit.
#[test]
fn memory_that_runs_out_halves_the_parts() -> Result<()> {
    let _serial = tests::serial();
    let (short, parted) = (peft()?, peft()?);
    let mut run = Run::new(&short, &["a"], &recipe(8), Data::whole())?;
    peft_core::device::count_memory();
    peft_core::device::reset_peak_memory(Device::Cpu)?;
    let before = peft_core::device::peak_memory(Device::Cpu)?;
    Run::new(&parted, &["a"], &recipe(2), Data::whole())?.step()?;
    let needed = peft_core::device::peak_memory(Device::Cpu)? - before;
    limit_memory(before + needed * 3 / 2);
    let step = run.step();
    limit_memory(0);
    let step = step?;
    ensure!(step.reduced.is_some_and(|rows| rows < 8) && step.rows.len() == 8, "{step:?}");
    let parts = step.reduced.context("parts")?;
    let other = peft()?;
    Run::new(&other, &["a"], &recipe(parts), Data::whole())?.step()?;
    let expected = weights(&other)?;
    weights(&short)?.iter().try_for_each(|(name, t)| assert_bits(name, t, &expected[name]))
}

/// The state of another run, and one that was changed.
#[test]
fn states_that_do_not_fit_are_refused_by_name() -> Result<()> {
    let _serial = tests::serial();
    let dir = tempfile::tempdir()?;
    let place = dir.path().join("checkpoint-1");
    let one = peft()?;
    let mut run = Run::new(&one, &["a"], &recipe(8), Data::whole())?;
    run.step()?;
    run.save(&place, &[("note.txt", b"mine")])?;
    let refused = |recipe: &Recipe, parts: &[&str]| -> Result<()> {
        let other = peft()?;
        let error =
            Run::new(&other, &["a"], recipe, Data::whole())?.load(&place).err().context("was loaded")?;
        let text = error.to_string();
        ensure!(parts.iter().all(|part| text.contains(part)) && text.lines().count() == 1, "{text}");
        Ok(())
    };
    refused(&Recipe { batch: 4, ..recipe(4) }, &["run.json", "batch", "is 8", "4"])?;
    refused(&Recipe { seed: 9, ..recipe(8) }, &["run.json", "seed"])?;
    let mut wide = one;
    wide.delete("a")?;
    wide.add("a", LoraConfig::new(2).targets(["ff.0", "out_proj"]))?;
    let error =
        Run::new(&wide, &["a"], &recipe(8), Data::whole())?.load(&place).err().context("was loaded")?;
    ensure!(error.to_string().contains("lora_A") && error.to_string().contains("[2, "), "{error}");
    let file = place.join("run.json");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("\"step\": 1", "\"step\": 2"))?;
    refused(&recipe(8), &["run.json", "other contents"])?;
    std::fs::remove_file(place.join("note.txt"))?;
    std::fs::write(&file, text)?;
    refused(&recipe(8), &["note.txt"])?;
    std::fs::remove_file(place.join("manifest.json"))?;
    refused(&recipe(8), &["manifest.json"])
}
