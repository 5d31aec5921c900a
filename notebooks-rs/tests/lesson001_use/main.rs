//! Lesson 001, sections 1.1 and 4.1 to 6.3: against the recorded run of PyTorch 2.11 and the counts of PEFT 0.21.2
//! (`golden/seed001.json`), and against formulas. Bits are compared on the kind of processor that they come from.

mod choice;
#[path = "../common/mod.rs"]
mod common;
mod memory;
mod prompts;
mod training;

use anyhow::{Context, Result, ensure};
use common::{alone, figure, golden, number, run, same_bits, same_lines};
use notebooks_rs::lesson001::{flow, prefix, prompt, ranking, selection};
use notebooks_rs::{Page, Setting};
use peft_core::report::commas;
use peft_plot::Panel;
use serde_json::Value;
use tch::{Device, Tensor};

/// Rows of a page's table.
fn rows(page: &Page, table: usize) -> Result<&[Vec<String>]> {
    Ok(&page.tables().get(table).context("a table")?.rows)
}

fn same_rows<C: AsRef<str>, R: AsRef<[C]>>(found: &[Vec<String>], expected: &[R]) -> Result<()> {
    for (found, expected) in found.iter().zip(expected) {
        let expected: Vec<&str> = expected.as_ref().iter().map(AsRef::as_ref).collect();
        ensure!(*found == expected, "{found:?}\n{expected:?}");
    }
    ensure!(found.len() == expected.len(), "{} rows, {} expected", found.len(), expected.len());
    Ok(())
}

/// Whether the golden's `name` is the count of a table.
fn count(table: &Value, name: &str) -> Result<i64> {
    table[name].as_i64().with_context(|| format!("no count `{name}`"))
}

fn setting() -> Setting {
    Setting { seed: 19, device: Device::Cpu }
}

fn sizes(t: &Tensor) -> String {
    t.size().iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
}

/// Our own words have these.
fn says(page: &Page, parts: &[&str]) -> Result<()> {
    let mistakes = page.mistaken().iter().map(|m| format!("{}: {}: {}", m.about, m.as_written, m.right));
    let text = mistakes.chain(page.to_see().iter().cloned()).collect::<Vec<_>>().join("\n");
    for part in parts {
        ensure!(text.contains(part), "no `{part}` in\n{text}");
    }
    Ok(())
}
