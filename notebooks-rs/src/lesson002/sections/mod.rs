//! The programs, one a heading of the lesson.

pub mod adapter;
pub mod attention;
pub mod comparison;
pub mod demo;
pub mod lora;
pub mod prefix;
pub mod prompt;
mod steps;

use super::tensors::{norm, shape, values};
use crate::Page;
use anyhow::{Context, Result};
use tch::Tensor;

/// One row a tensor: what it is, its shape, its ends and its norm. All elements are facts.
fn computed(page: &mut Page, title: &str, tensors: &[(&str, &str, &Tensor)]) -> Result<()> {
    let mut rows = Vec::new();
    for (name, formula, t) in tensors {
        let all = values(t)?;
        let (first, last) = (all.first().context("no element")?, all.last().context("no element")?);
        let numbers = [*first, *last, norm(t)?].map(|v| format!("{v:.6}"));
        rows.push([(*name).to_owned(), (*formula).to_owned(), shape(t)].into_iter().chain(numbers).collect());
        page.fact(name, all);
    }
    page.table(title, ["tensor", "formula", "shape", "first element", "last element", "norm"], rows)?;
    Ok(())
}
