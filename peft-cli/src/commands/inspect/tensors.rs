//! What there is to say of tensors and their files.

use anyhow::{Context, Result};
use peft_core::estimate::human_bytes;
use peft_core::report::commas;
use peft_core::tch::{Kind, Tensor};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What there is of tensors.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tensors {
    pub(super) count: usize,
    pub(super) parameters: i64,
    pub(super) bytes: i64,
    pub(super) dtypes: BTreeMap<String, usize>,
    /// Names of tensors with values that are NaN or infinite.
    pub(super) not_finite: Vec<String>,
}

impl Tensors {
    /// Takes one up; its norm.
    pub(super) fn take(&mut self, name: &str, t: &Tensor) -> Result<Option<f64>> {
        let numel = i64::try_from(t.numel())?;
        self.count += 1;
        self.parameters = self.parameters.saturating_add(numel);
        self.bytes =
            self.bytes.saturating_add(numel.saturating_mul(i64::try_from(t.kind().elt_size_in_bytes())?));
        *self.dtypes.entry(format!("{:?}", t.kind()).to_lowercase()).or_default() += 1;
        if !matches!(t.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
            return Ok(None);
        }
        let norm = t.f_to_kind(Kind::Double)?.f_norm()?.f_double_value(&[])?;
        if !norm.is_finite() {
            self.not_finite.push(name.to_owned());
        }
        Ok(Some(norm))
    }

    pub(super) fn text(&self) -> String {
        let dtypes: Vec<String> = self.dtypes.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let mut text = format!(
            "{} parameters in {} tensors ({}), {}",
            commas(self.parameters),
            self.count,
            dtypes.join(", "),
            human_bytes(self.bytes)
        );
        for name in &self.not_finite {
            let _ = write!(text, "\n  NaN or infinite: {name}");
        }
        text
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Norms {
    pub(super) count: usize,
    pub(super) mean: f64,
    pub(super) max: f64,
}

impl Norms {
    /// Takes up the norm of one more.
    pub(super) fn take(&mut self, norm: f64) {
        let before = self.mean * self.count as f64;
        self.count += 1;
        self.mean = (before + norm) / self.count as f64;
        self.max = self.max.max(norm);
    }
}

/// What a safetensors file says of itself beside its tensors; nothing where it is none.
pub(super) fn metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    if path.extension().is_none_or(|end| end != "safetensors") {
        return Ok(BTreeMap::new());
    }
    let named = || path.display().to_string();
    let mut file = File::open(path).with_context(named)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).with_context(named)?;
    let mut header = Vec::new();
    // A wrong length reads the file to its end, and no more.
    file.take(u64::from_le_bytes(length)).read_to_end(&mut header).with_context(named)?;
    let header: Value = serde_json::from_slice(&header).with_context(named)?;
    let said = header.get("__metadata__").cloned().unwrap_or_else(|| Value::Object(Default::default()));
    serde_json::from_value(said).with_context(|| format!("{}: __metadata__", path.display()))
}

/// `format: pt, made: here`.
pub(super) fn said(metadata: &BTreeMap<String, String>) -> String {
    metadata.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")
}

/// Lines below a heading, those that say something.
#[derive(Default)]
pub(super) struct Lines(String);

impl Lines {
    pub(super) fn add(&mut self, what: &str, value: &str) {
        if !value.is_empty() {
            let _ = write!(self.0, "\n  {what:<10} {value}");
        }
    }

    pub(super) fn under(self, heading: &str) -> String {
        format!("{heading}{}", self.0)
    }
}
