//! Files with tensors of several dtypes, and with values that are no numbers.

use crate::{case, logits, open, short, warned};
use anyhow::{Result, ensure};
use peft_core::io::tensors;
use std::path::Path;
use tch::{Kind, Tensor};
use tests::{assert_bits, refused, serial};

/// Changes the tensors of a directory with these words in their names.
fn change(dir: &Path, words: &str, change: impl Fn(&Tensor) -> Tensor) -> Result<()> {
    let path = dir.join("model.safetensors");
    let mut all = tensors::read(&path)?;
    for t in all.iter_mut().filter_map(|(name, t)| name.contains(words).then_some(t)) {
        *t = change(t);
    }
    Ok(tensors::write(&path, &all)?)
}

/// As transformers casts them: to what `config.json` says.
#[test]
fn tensors_of_several_dtypes() -> Result<()> {
    let _serial = serial();
    let dir = case("bom", "llama")?;
    change(dir.path(), "mlp", |t| t.to_kind(Kind::Half).to_kind(Kind::Float))?;
    let expected = logits(&open(dir.path())?.peft, &short())?;
    change(dir.path(), "mlp", |t| t.to_kind(Kind::Half))?;
    let mixed = open(dir.path())?;
    warned(&mixed.warnings, &[&["config.json: dtype", "float16 and float32", "all become float32"]])?;
    assert_bits("mixed", &logits(&mixed.peft, &short())?, &expected)
}

#[test]
fn values_that_are_no_numbers_are_said() -> Result<()> {
    let _serial = serial();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let dir = case("bom", "llama")?;
        change(dir.path(), "layers.1.mlp.up_proj", |t| {
            let t = t.copy();
            let _ = t.get(3).get(5).fill_(bad);
            t
        })?;
        let said: &[&str] = &["model.safetensors", "model.layers.1.mlp.up_proj.weight", "NaN or infinite"];
        warned(&open(dir.path())?.warnings, &[said])?;
        ensure!(!bool::try_from(logits(&open(dir.path())?.peft, &short())?.isfinite().all())?, "{bad}");
    }
    // The largest number is one.
    let dir = case("bom", "llama")?;
    change(dir.path(), "embed_tokens", |t| t.to_kind(Kind::BFloat16).fill_(3.38e38).to_kind(Kind::Float))?;
    warned(&open(dir.path())?.warnings, &[])?;
    change(dir.path(), "norm", |t| t.to_kind(Kind::Int64))?;
    refused("integers", open(dir.path()), &["norm", "Int64", "expected floats"])?;
    Ok(())
}
