//! Shared by the tests: reading goldens, comparing tensors.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// A folder below `tests/golden`.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(path)
}

/// Worst difference relative to the golden's largest value: `max |a − b| / max |b|`.
pub fn relative_error(found: &Tensor, expected: &Tensor) -> Result<f64> {
    if found.size() != expected.size() {
        bail!("shape {:?}, expected {:?}", found.size(), expected.size());
    }
    let (a, b) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let scale = f64::try_from(b.abs().max())?;
    let worst = f64::try_from((&a - &b).abs().max())?;
    if worst.is_nan() {
        bail!("not a number");
    }
    Ok(if worst == 0.0 { 0.0 } else { worst / scale })
}

/// Fails unless `found` is within `tol` of `expected`, relative to its largest value.
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tol: f64) -> Result<()> {
    let error = relative_error(found, expected).with_context(|| what.to_owned())?;
    if error > tol {
        bail!("{what}: relative error {error:.2e}, at most {tol:.0e} expected");
    }
    Ok(())
}

/// The tensors of a golden folder's `golden.safetensors`.
pub fn golden_tensors(dir: &Path) -> Result<BTreeMap<String, Tensor>> {
    Ok(peft_core::io::tensors::read(&dir.join("golden.safetensors"))?)
}
