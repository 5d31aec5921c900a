//! Lesson 002 against the recorded NumPy run (`golden/seed002.json`): the demo's lines, forward and backward of closed-form
//! numbers to 1e-12; and every gradient by hand against autograd, finite differences and the library.

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod demo;
mod exercises;
mod layers;
mod lora;

use anyhow::{Context, Result, ensure};
use common::{alone, golden, number, run, same_curves, same_lines, strings};
use notebooks_rs::Page;
use notebooks_rs::lesson002::check::{STEP, check};
use notebooks_rs::lesson002::compare::{Sizes, compare};
use notebooks_rs::lesson002::module::{Module, Parameter};
use notebooks_rs::lesson002::sections::lora::{batch, example};
use notebooks_rs::lesson002::tensors::{Source, norm};
use notebooks_rs::measure::small;
use notebooks_rs::page::Table;
use peft_core::report::commas;
use peft_plot::Panel;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const CPU: Source = Source(Device::Cpu);

/// Gradients by hand against autograd, both in f64.
const AUTOGRAD: f64 = 1e-13;

/// Against central differences with a step of 1e-5.
const DIFFERENCES: f64 = 1e-7;

/// Against the library's, in f32.
const SINGLE: f64 = 5e-6;

fn table<'p>(page: &'p Page, title: &str) -> Result<&'p Table> {
    page.tables().iter().find(|t| t.title == title).with_context(|| format!("no table `{title}`"))
}

fn titles(page: &Page) -> Vec<&str> {
    page.tables().iter().map(|t| t.title.as_str()).collect()
}

/// Whether a table of errors has these rows, the errors of the fact `{about}.errors`, and none above its limit.
fn errors(page: &Page, about: &str, rows: &[(&str, &str)], limits: &[f64]) -> Result<()> {
    let title = match limits {
        [SINGLE] => format!("{about} of the library, in f32: relative difference"),
        _ => format!("{about}: gradients by hand, relative difference"),
    };
    let (title, table) = (title.as_str(), table(page, &title)?);
    let facts = &page.facts()[&format!("{about}.errors")];
    let facts = facts.as_array().with_context(|| format!("no errors of {about}"))?;
    ensure!(facts.len() == rows.len(), "{about}: {facts:?}");
    for (row, fact) in table.rows.iter().zip(facts) {
        let fact = if fact.is_array() { floats(fact)? } else { vec![fact.as_f64().context("an error")?] };
        let cells: Vec<String> = fact.into_iter().map(small).collect();
        ensure!(row[2..] == cells, "{title}: {row:?}, the errors are {cells:?}");
    }
    ensure!(table.rows.len() == rows.len(), "{title}: {:?}", table.rows);
    for (row, (name, shape)) in table.rows.iter().zip(rows) {
        ensure!(row[0] == *name && row[1] == *shape, "{title}: {row:?}, not {name} {shape}");
        ensure!(row.len() == 2 + limits.len(), "{row:?}");
        for (cell, limit) in row[2..].iter().zip(limits) {
            let error: f64 = cell.parse().with_context(|| cell.clone())?;
            ensure!((0.0..*limit).contains(&error), "{title}: {row:?}, more than {limit:e}");
        }
    }
    Ok(())
}

/// The gradients by hand of `class` by these parameters, and those of its `twin` in the library.
fn right(page: &Page, class: &str, twin: &str, y: &str, parameters: &[(&str, &str)], x: &str) -> Result<()> {
    let mut rows = parameters.to_vec();
    rows.push(("x", x));
    errors(page, class, &rows, &[AUTOGRAD, DIFFERENCES])?;
    ensure!(number(page, &format!("{class}.autograd"))? < AUTOGRAD);
    ensure!(number(page, &format!("{class}.differences"))? < DIFFERENCES);
    if twin.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = parameters.iter().map(|(name, _)| format!("d{name}")).collect();
    let mut rows = vec![("y", y), ("dx", x)];
    rows.extend(names.iter().zip(parameters).map(|(name, (_, shape))| (name.as_str(), *shape)));
    errors(page, twin, &rows, &[SINGLE])?;
    ensure!(number(page, &format!("{twin}.difference"))? < SINGLE);
    Ok(())
}

fn floats(value: &Value) -> Result<Vec<f64>> {
    value.as_array().context("no list")?.iter().map(|v| v.as_f64().context("no number")).collect()
}

fn fact(page: &Page, name: &str) -> Result<Vec<f64>> {
    floats(page.facts().get(name).with_context(|| format!("no fact `{name}`"))?)
}

/// The recorded tensors, to 1e-12, and their rows in the table: name, formula, shape, and three numbers.
fn recorded(page: &Page, golden: &Value, names: &[[&str; 3]]) -> Result<()> {
    let table = table(page, "Forward and backward of closed-form numbers")?;
    ensure!(table.rows.len() == names.len(), "{:?}", table.rows);
    for (row, [name, formula, shape]) in table.rows.iter().zip(names) {
        ensure!(row[1] == *formula && row[2] == *shape, "{row:?}, not {formula} {shape}");
        let found = fact(page, name)?;
        let size = found.iter().map(|v| v * v).sum::<f64>().sqrt();
        if *name != "y" || golden.get("y").is_some() {
            let expected = floats(&golden[name])?;
            ensure!(found.len() == expected.len(), "{name}: {} numbers", found.len());
            for (found, expected) in found.iter().zip(&expected) {
                ensure!((found - expected).abs() <= 1e-12, "{name}: {found}, recorded {expected}");
            }
        }
        let cells = [found[0], found[found.len() - 1], size].map(|v| format!("{v:.6}"));
        ensure!(row[0] == *name && row[3..] == cells, "{row:?}, not {cells:?}");
    }
    Ok(())
}

/// What the mistakes say, `[as written, right]`.
fn mistaken(page: &Page) -> Vec<[&str; 2]> {
    page.mistaken().iter().map(|m| [m.as_written.as_str(), m.right.as_str()]).collect()
}

/// `‖dA‖ = .., ‖dB‖ = ..` of the gradients that autograd has of `loss`.
fn norms(names: &[&str], leaves: &[&Tensor], loss: &dyn Fn() -> Result<Tensor>) -> Result<String> {
    for leaf in leaves {
        let _ = leaf.f_set_requires_grad(true)?;
    }
    let leaves: Vec<Tensor> = leaves.iter().map(|t| t.shallow_clone()).collect();
    let grads = Tensor::f_run_backward(&[loss()?], &leaves, false, false)?;
    let one = |(name, grad): (&&str, &Tensor)| Ok(format!("‖d{name}‖ = {:.4}", norm(grad)?));
    Ok(names.iter().zip(&grads).map(one).collect::<Result<Vec<_>>>()?.join(", "))
}

fn sum(t: Tensor) -> Tensor {
    t.sum(Kind::Double)
}
