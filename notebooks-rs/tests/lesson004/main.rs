//! Lesson 004 against the recorded run of PyTorch 2.11 (`golden/seed004.json`), and what its own sections measure.
//!
//! Numbers that come out of training differ from machine to machine: of them, what has to hold everywhere is tested, and
//! that each table says what was measured.

mod announced;
mod arithmetic;
#[path = "../common/mod.rs"]
mod common;
mod lora;
mod rank;
mod setup;

use anyhow::{Context, Result, ensure};
use common::{
    alone, close, golden, number, numbers, recorded_kind, run, same_curves, same_lines, same_tables, sha,
    strings,
};
use notebooks_rs::lesson004::{Spectrum, Test, Trace, redirected, similarity};
use notebooks_rs::{Page, Setting};
use peft_core::Pass;
use peft_core::report::commas;
use tch::{Device, Kind, Tensor};

/// Whether the page has the figures of these names, and each can be drawn.
fn figures(page: &Page, names: &[&str]) -> Result<()> {
    let found: Vec<&str> = page.pictures().iter().map(|p| p.name.as_str()).collect();
    ensure!(found == names, "{found:?}");
    page.pictures().iter().try_for_each(|p| Ok(p.figure.svg().map(drop)?))
}

/// The facts of the lesson's test of a layer of 131,328 parameters, of which a method trains this many more.
fn tested(page: &Page, trained: i64) -> Result<()> {
    let (all, trained) = (131_328.0, trained as f64);
    for (name, expected) in [
        ("trainable", trained),
        ("total", all + trained),
        ("reduction", 1.0 - trained / (all + trained)),
        ("reduction_of_the_layer", 1.0 - trained / all),
    ] {
        close(name, number(page, name)?, expected)?;
    }
    ensure!(number(page, "start_norm")? == 0.0 && number(page, "total")? == all + trained);
    Ok(())
}

/// Whether the page's words are these.
fn said(page: &Page, part: &str) -> Result<()> {
    let mistakes = page.mistaken().iter().flat_map(|m| [&m.as_written, &m.right]);
    let all: Vec<&String> = mistakes.chain(page.to_see()).collect();
    ensure!(all.iter().any(|text| text.contains(part)), "nowhere `{part}` in {all:#?}");
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

#[test]
fn every_printed_line() -> Result<()> {
    let _alone = alone();
    let mut lines = Vec::new();
    for section in ["depth_setup", "depth_lora"] {
        lines.extend(run(section)?.lines().to_vec());
    }
    same_lines(&lines, &strings(&golden("seed004")?["printed"])?)
}
