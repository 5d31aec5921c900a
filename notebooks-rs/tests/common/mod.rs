//! What the tests of all lessons share.

#![allow(dead_code)]

mod pages;

use anyhow::{Context, Result, ensure};
use notebooks_rs::{Page, Setting, find};
use peft_plot::{Figure, Panel};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Device, Tensor};

/// Where bits may differ: the goldens' own `suggested_portable_rtol`.
pub const PORTABLE: f64 = 2e-5;

/// libtorch has one generator for the whole process: one lesson at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    guard
}

/// The file `tests/golden/<name>.json`.
pub fn golden(name: &str) -> Result<Value> {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    serde_json::from_str(&text).context(path)
}

/// The page of the program `name` with its own seed, which is the recorded one; made once, however many tests look at it.
pub fn run(name: &str) -> Result<Arc<Page>> {
    let (_, section) = find(name).with_context(|| format!("no section `{name}`"))?;
    once(name, |page| {
        (section.run)(Setting { seed: section.seed, device: Device::Cpu }, page)?;
        pages::same_page(name, page)
    })
}

/// The page `name` as `make` writes it the first time.
pub fn once(name: &str, make: impl FnOnce(&mut Page) -> Result<()>) -> Result<Arc<Page>> {
    static PAGES: Mutex<BTreeMap<String, Arc<Page>>> = Mutex::new(BTreeMap::new());
    let mut pages = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(page) = pages.get(name) {
        return Ok(page.clone());
    }
    let mut page = Page::silent();
    make(&mut page)?;
    let page = Arc::new(page);
    pages.insert(name.to_owned(), page.clone());
    Ok(page)
}

/// Whether the curves of a figure's panel have these numbers, in order.
pub fn same_curves(page: &Page, figure: &str, panel: usize, expected: &[Vec<f64>]) -> Result<()> {
    let picture =
        page.pictures().iter().find(|p| p.name == figure).with_context(|| format!("no {figure}"))?;
    let found =
        picture.figure.rows.iter().flatten().nth(panel).with_context(|| format!("{figure}: no panel"))?;
    let found: Vec<Vec<f64>> = match found {
        Panel::Lines(lines) => lines.series.iter().map(|s| s.points.iter().map(|p| p.1).collect()).collect(),
        Panel::Bars(bars) => bars.groups.iter().map(|g| g.values.clone()).collect(),
        Panel::Heat(heat) => heat.rows.clone(),
        Panel::Points(points) => vec![points.points.iter().map(|p| p.y).collect()],
    };
    let lengths = |all: &[Vec<f64>]| all.iter().map(Vec::len).collect::<Vec<_>>();
    let (own, other) = (lengths(&found), lengths(expected));
    ensure!(own == other, "{figure}: {own:?} numbers, expected {other:?}");
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        // The same sums, in another order at most.
        let near = (found - expected).abs() <= 1e-9 * expected.abs().max(1e-30);
        ensure!(near, "{figure}: {found}, expected {expected}");
    }
    Ok(())
}

/// The numbers of the fact `name`, a list.
pub fn numbers(page: &Page, name: &str) -> Result<Vec<f64>> {
    let list =
        page.facts().get(name).and_then(Value::as_array).with_context(|| format!("no list `{name}`"))?;
    list.iter().map(|v| v.as_f64().context("no number")).collect()
}

/// The program `name`, beside the folder that this test is in. (Cargo names it in `CARGO_BIN_EXE_notebooks-rs`, but a
/// variable with a hyphen does not get through the shell script that wraps rustc.)
pub fn program(name: &str) -> Result<Command> {
    let test = std::env::current_exe()?;
    let dir = test.parent().and_then(Path::parent).context("target directory")?;
    Ok(Command::new(dir.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))))
}

/// Whether `found` are the lines `expected`, word for word.
pub fn same_lines<E: AsRef<str>>(found: &[String], expected: &[E]) -> Result<()> {
    for (number, (found, expected)) in (1..).zip(found.iter().zip(expected)) {
        let expected = expected.as_ref();
        ensure!(found == expected, "line {number} is\n{found}\nthe lesson has\n{expected}");
    }
    ensure!(found.len() == expected.len(), "{} lines, the lesson has {}", found.len(), expected.len());
    Ok(())
}

/// The strings of a JSON list.
pub fn strings(value: &Value) -> Result<Vec<String>> {
    let list = value.as_array().context("no list")?;
    list.iter().map(|v| v.as_str().map(str::to_owned).context("no string")).collect()
}

/// The number of the fact `name`.
pub fn number(page: &Page, name: &str) -> Result<f64> {
    page.facts().get(name).and_then(Value::as_f64).with_context(|| format!("no number `{name}`"))
}

/// Whether two numbers agree to [`PORTABLE`], relative.
pub fn close(what: &str, found: f64, expected: f64) -> Result<()> {
    let error = (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
    ensure!(error <= PORTABLE, "{what}: {found}, recorded {expected}");
    Ok(())
}

/// Whether this is a processor of the recorded kind, Intel with AVX512-FP16 (Sapphire Rapids and later), or one with
/// AVX-512 on which `scripts/intel_kernels.c` makes MKL take the same kernels.
pub fn recorded_kind() -> bool {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let taken_for_one = std::env::var("LD_PRELOAD").is_ok_and(|l| l.contains("intel_kernels"));
    info.contains("GenuineIntel") && info.contains("avx512_fp16") || taken_for_one && info.contains("avx512f")
}

/// The first half of the SHA-256 of a tensor's bytes, in hexadecimal, as the goldens have it.
pub fn sha(t: &Tensor) -> Result<String> {
    let t = t.detach().contiguous();
    let mut bytes = vec![0u8; t.numel() * t.kind().elt_size_in_bytes()];
    t.f_copy_data_u8(&mut bytes, t.numel())?;
    let hex: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok(hex[..32].to_owned())
}

/// Whether tensors have the bits that the golden has under their names, on the recorded kind of processor.
pub fn same_bits(golden: &Value, tensors: &[(&str, &Tensor)]) -> Result<()> {
    for (name, t) in tensors {
        ensure!(golden[name].is_string(), "no recorded bits of `{name}`");
        ensure!(!recorded_kind() || golden[name] == sha(t)?, "{name} has other bits");
    }
    Ok(())
}

/// Whether the page's tables are these, cell for cell; the cells of a row are parted by ` | `.
pub fn same_tables(page: &Page, expected: &[(&str, Vec<String>)]) -> Result<()> {
    for (table, (title, rows)) in page.tables().iter().zip(expected) {
        ensure!(table.title == *title, "the table is `{}`, expected `{title}`", table.title);
        let found: Vec<String> = table.rows.iter().map(|r| r.join(" | ")).collect();
        same_lines(&found, rows).context(table.title.clone())?;
    }
    ensure!(page.tables().len() == expected.len(), "{} tables", page.tables().len());
    Ok(())
}

/// The figure `name` of a page.
pub fn figure<'p>(page: &'p Page, name: &str) -> Result<&'p Figure> {
    let picture = page.pictures().iter().find(|p| p.name == name);
    Ok(&picture.with_context(|| format!("no figure {name}"))?.figure)
}
