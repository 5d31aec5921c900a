//! Lesson 001, sections 1.2 to 3.2, against the recorded run of PyTorch 2.11 (`golden/seed001.json`). Bits are compared
//! on the kind of processor that they come from.

mod adapter;
#[path = "../common/mod.rs"]
mod common;
mod dora;
mod lora;
mod qlora;
mod taxonomy;

use anyhow::{Context, Result, ensure};
use common::{
    alone, close, golden, number, numbers, recorded_kind, run, same_bits, same_lines, same_tables, sha,
};
use notebooks_rs::measure::small;
use notebooks_rs::{Page, Setting};
use peft_core::Pass;
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_core::seam::PREFIX;
use peft_plot::Panel;
use serde_json::Value;
use tch::{Device, Tensor};

fn setting() -> Setting {
    Setting { seed: 19, device: Device::Cpu }
}

fn value(golden: &Value, name: &str) -> Result<f64> {
    golden[name]["value"].as_f64().with_context(|| format!("no value `{name}`"))
}

fn rows(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&l| l.to_owned()).collect()
}

/// Whether some mistake's two sides have these texts in them.
fn mistaken(page: &Page, as_written: &str, right: &str) -> Result<()> {
    let found = page.mistaken().iter().any(|m| m.as_written.contains(as_written) && m.right.contains(right));
    ensure!(found, "no mistake with `{as_written}` and `{right}` in {:#?}", page.mistaken());
    Ok(())
}

/// Whether the page's one figure has this name, titles, labels and finite numbers in every panel.
fn drawn(page: &Page, name: &str) -> Result<()> {
    let [picture] = page.pictures() else { anyhow::bail!("{} figures", page.pictures().len()) };
    ensure!(picture.name == name && !picture.figure.title.is_empty(), "{}", picture.name);
    for panel in picture.figure.rows.iter().flatten() {
        let (labels, numbers): (Vec<&String>, Vec<f64>) = match panel {
            Panel::Lines(l) => {
                let points = l.series.iter().flat_map(|s| &s.points).flat_map(|p| [p.0, p.1]);
                (vec![&l.title, &l.x.label, &l.y.label], points.collect())
            }
            Panel::Points(p) => {
                (vec![&p.title, &p.x.label, &p.y.label], p.points.iter().flat_map(|p| [p.x, p.y]).collect())
            }
            Panel::Bars(b) => {
                let values = b.groups.iter().flat_map(|g| g.values.iter().copied());
                (vec![&b.title, &b.x, &b.y.label], values.collect())
            }
            Panel::Heat(h) => (vec![&h.title], h.rows.iter().flatten().copied().collect()),
        };
        ensure!(labels.iter().all(|l| !l.is_empty()), "{name}: {labels:?}");
        ensure!(numbers.len() >= 4 && numbers.iter().all(|n| n.is_finite()), "{name}: {numbers:?}");
    }
    Ok(())
}
