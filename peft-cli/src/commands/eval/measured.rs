//! What an evaluation says.

use crate::common::table;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use peft_core::train::Evaluation;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// How good a model is with some adapters.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// The adapters that were active, the innermost first; none of the base alone.
    adapters: Vec<String>,
    rows: usize,
    loss: f64,
    /// How many labels that is the mean of: tokens, or rows.
    counted: f64,
    #[serde(flatten)]
    metrics: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    confusion: Vec<Confused>,
}

#[derive(Debug, Serialize)]
struct Confused {
    expected: String,
    found: String,
    count: u64,
}

/// A table of more classes is not read by anyone.
const MOST: usize = 12;

impl Measured {
    pub(super) fn new(adapters: &[&str], rows: usize, classes: &[String], evaluation: Evaluation) -> Self {
        let Evaluation { loss, counted, metrics, confusion } = evaluation;
        let name = |class: i64| {
            let named = usize::try_from(class).ok().and_then(|at| classes.get(at).cloned());
            named.unwrap_or_else(|| class.to_string())
        };
        let confusion = confusion.into_iter().map(|((expected, found), count)| Confused {
            expected: name(expected),
            found: name(found),
            count,
        });
        let adapters = adapters.iter().map(|name| (*name).to_owned()).collect();
        Self { adapters, rows, loss, counted, metrics, confusion: confusion.collect() }
    }

    fn of(&self) -> String {
        if self.adapters.is_empty() { "base alone".into() } else { self.adapters.join(" + ") }
    }

    /// One result, with its confusions.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}: {} rows, loss {:.4}", self.of(), self.rows, self.loss);
        for (name, value) in &self.metrics {
            let _ = write!(text, "\n  {name:<15} {value:.4}");
        }
        if !self.confusion.is_empty() {
            let _ = write!(text, "\n{}", self.confusions());
        }
        text
    }

    /// A matrix; of many classes the mistakes that are made most.
    fn confusions(&self) -> Table {
        let names: BTreeSet<&str> =
            self.confusion.iter().flat_map(|c| [c.expected.as_str(), c.found.as_str()]).collect();
        let mut matrix = Table::new();
        matrix.load_style(UTF8_FULL_CONDENSED);
        if names.len() > MOST {
            let mut wrong: Vec<_> = self.confusion.iter().filter(|c| c.expected != c.found).collect();
            wrong.sort_by_key(|c| std::cmp::Reverse(c.count));
            matrix.set_header(["expected", "found", "rows"]);
            for c in wrong.into_iter().take(MOST) {
                matrix.add_row([c.expected.clone(), c.found.clone(), c.count.to_string()]);
            }
            return matrix;
        }
        let found = names.iter().map(|name| format!("found {name}"));
        matrix.set_header(std::iter::once("expected".to_owned()).chain(found));
        for expected in &names {
            let count = |found: &&str| {
                let cell = self.confusion.iter().find(|c| c.expected == *expected && c.found == *found);
                cell.map_or(0, |c| c.count).to_string()
            };
            matrix.add_row(std::iter::once((*expected).to_owned()).chain(names.iter().map(count)));
        }
        for column in matrix.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        matrix
    }
}

/// Several results side by side, one a line.
pub(super) fn compared(all: &[Measured]) -> Table {
    let names: BTreeSet<&str> = all.iter().flat_map(|m| m.metrics.keys().copied()).collect();
    let mut compared = table(["adapter", "rows", "loss"], 1);
    compared.set_header(["adapter", "rows", "loss"].into_iter().chain(names.iter().copied()));
    for measured in all {
        let metric = |name: &&str| measured.metrics.get(name).map(|v| format!("{v:.4}")).unwrap_or_default();
        let first = [measured.of(), measured.rows.to_string(), format!("{:.4}", measured.loss)];
        compared.add_row(first.into_iter().chain(names.iter().map(metric)));
    }
    for column in compared.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    compared
}
