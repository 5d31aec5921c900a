//! What the tests of all lessons share.

#![allow(dead_code)]

use anyhow::{Context, Result, ensure};
use notebooks_rs::cli::pin_threads;
use notebooks_rs::{Page, Setting, find};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Tensor};

/// Where bits may differ: the goldens' own `suggested_portable_rtol`.
pub const PORTABLE: f64 = 2e-5;

/// libtorch has one generator for the whole process: one lesson at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    pin_threads();
    guard
}

/// The file `tests/golden/<name>.json`.
pub fn golden(name: &str) -> Result<Value> {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    serde_json::from_str(&text).context(path)
}

/// Runs the section of the program `name` with its own seed.
pub fn run(name: &str) -> Result<Page> {
    let (_, section) = find(name).with_context(|| format!("no section `{name}`"))?;
    let mut page = Page::silent();
    (section.run)(Setting { seed: section.seed, device: Device::Cpu }, &mut page)?;
    Ok(page)
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

/// Whether this is a processor of the recorded kind: Intel with AVX512-FP16 (Sapphire Rapids and later).
pub fn recorded_kind() -> bool {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.contains("GenuineIntel") && info.contains("avx512_fp16")
}

/// The first half of the SHA-256 of a tensor's bytes, in hexadecimal, as the goldens have it.
pub fn sha(t: &Tensor) -> Result<String> {
    let t = t.detach().contiguous();
    let mut bytes = vec![0u8; t.numel() * t.kind().elt_size_in_bytes()];
    t.f_copy_data_u8(&mut bytes, t.numel())?;
    let hex: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok(hex[..32].to_owned())
}
