//! What is written is opened again and compared with what it should compute, before it is where it was asked for.

use anyhow::{Context, Result, ensure};
use peft_core::io::IfExists;
use peft_core::tch::{Device, Kind, Tensor, no_grad};
use peft_core::{Batch, Model, Pass, Peft};
use std::path::{Path, PathBuf};

/// Rows of the probe, and how many tokens each has where there are positions for them.
const ROWS: i64 = 4;
const TOKENS: i64 = 16;

/// Token ids that are the same every time, for models of that vocabulary.
fn probe(peft: &Peft) -> Result<Batch> {
    let sizes = peft.outline().dims.sizes()?;
    let (rows, length) = (ROWS, sizes.positions.unwrap_or(TOKENS).clamp(1, TOKENS));
    let vocab = u64::try_from(sizes.vocab)?.max(1);
    // A generator of its own: the numbers of nobody else change.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((state >> 33) % vocab).unwrap_or_default()
    };
    // Padding within a text would be text without a position.
    let mut word =
        || std::iter::repeat_with(&mut next).take(100).find(|id| Some(*id) != sizes.pad).unwrap_or_default();
    let ids: Vec<i64> = (0..rows * length).map(|_| word()).collect();
    Ok(Batch::dense(Tensor::f_from_slice(&ids)?.f_view([rows, length])?.f_to(peft.base().device())?))
}

/// What a model says to the probe.
fn answer(peft: &Peft, active: &[&str]) -> Result<Tensor> {
    let batch = probe(peft)?;
    let model: Box<dyn Model> = peft.view(active)?;
    Ok(no_grad(|| model.forward(&batch, Pass::eval()))?.f_to_kind(Kind::Double)?.f_to(Device::Cpu)?)
}

/// How far two models are apart on the probe.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Distance {
    /// The largest difference of two logits, over the largest logit.
    pub error: f64,
    /// What it may be, for a model of that dtype.
    pub tolerance: f64,
}

impl Distance {
    /// Between a model with its adapters and another one with its.
    pub fn between(peft: &Peft, active: &[&str], other: &Peft, theirs: &[&str]) -> Result<Self> {
        let (a, b) = (answer(peft, active)?, answer(other, theirs)?);
        ensure!(a.size() == b.size(), "logits of shape {:?}, expected {:?}", b.size(), a.size());
        let largest = |t: &Tensor| Ok::<f64, anyhow::Error>(t.f_abs()?.f_max()?.f_double_value(&[])?);
        let error = largest(&a.f_sub(&b)?)? / largest(&a)?.max(f64::MIN_POSITIVE);
        Ok(Self { error, tolerance: tolerance(peft) })
    }

    /// An error unless it is within what it may be; `what` is what was written.
    pub fn check(self, what: &str) -> Result<Self> {
        let Self { error, tolerance } = self;
        // NaN is above everything.
        ensure!(
            error <= tolerance,
            "{what} was opened again and does not compute what it should: logits are {error:.1e} apart, relative to the \
             largest, where {tolerance:.0e} is allowed; nothing was kept of it"
        );
        Ok(self)
    }
}

impl std::fmt::Display for Distance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "opened again: logits are {:.1e} apart, of {:.0e} allowed", self.error, self.tolerance)
    }
}

/// What rounding may do: the merged weights round once more than those beside an adapter.
fn tolerance(peft: &Peft) -> f64 {
    let words = peft.outline().dims.word_embedding().and_then(|name| peft.base().find(name));
    match words.map(|w| w.kind()) {
        Some(Kind::BFloat16) => 5e-2,
        Some(Kind::Half) => 1e-2,
        _ => 1e-4,
    }
}

/// Writes by `write` into a folder beside `out`, lets `check` open that, and puts it in place of `out` only then. A folder
/// that has something already is written by `write` once more, which knows what to replace in it.
pub fn written<T>(
    out: &Path,
    if_exists: IfExists,
    write: impl Fn(&Path, IfExists) -> peft_core::Result<()>,
    check: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let beside = Beside::of(out)?;
    write(&beside.0, IfExists::Refuse)?;
    let checked = check(&beside.0)?;
    // An empty folder, which was made to see whether it can be written to, is in nobody's way.
    let _ = std::fs::remove_dir(out);
    if out.exists() {
        write(out, if_exists)?;
    } else {
        std::fs::rename(&beside.0, out).with_context(|| out.display().to_string())?;
    }
    Ok(checked)
}

/// A folder for what is not verified yet; it goes with this.
#[derive(Debug)]
struct Beside(PathBuf);

impl Beside {
    fn of(out: &Path) -> Result<Self> {
        let name = out
            .file_name()
            .and_then(|n| n.to_str())
            .with_context(|| format!("{}: expected a folder", out.display()))?;
        let beside = out.with_file_name(format!(".{name}.{}", std::process::id()));
        ensure!(!beside.exists(), "{}: is in the way; remove it", beside.display());
        Ok(Self(beside))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Takes the folder that is written to away again where it was not there before and nothing was written.
#[derive(Debug)]
pub struct Untouched(Option<PathBuf>);

impl Untouched {
    /// To be made before anything is tried in that folder.
    pub fn of(out: &Path) -> Self {
        Self((!out.exists()).then(|| out.to_owned()))
    }
}

impl Drop for Untouched {
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            // It fails where there is something in it, and should.
            let _ = std::fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn write(dir: &Path, _: IfExists) -> peft_core::Result<()> {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("new"), "new").unwrap();
        Ok(())
    }

    #[test]
    fn what_is_not_what_it_should_be_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let there = || dir.path().read_dir().unwrap().count();
        let distance = |error| Distance { error, tolerance: 1e-4 };
        for error in [2e-4, f64::NAN, f64::INFINITY] {
            let check = |_: &Path| distance(error).check("out");
            let said = written(&out, IfExists::Refuse, write, check).unwrap_err().to_string();
            assert!(said.contains("nothing was kept") && there() == 0, "{said}");
        }
        written(&out, IfExists::Refuse, write, |_| distance(5e-5).check("out")).unwrap();
        assert!(out.join("new").exists() && there() == 1);
        // What was there before stays.
        std::fs::write(out.join("old"), "old").unwrap();
        written(&out, IfExists::Replace, write, |_| -> Result<()> { bail!("no") }).unwrap_err();
        assert!(out.join("old").exists() && there() == 1);
    }
}
