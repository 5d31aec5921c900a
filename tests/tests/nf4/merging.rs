//! Merging into weights in 4 bits.

use crate::{TOL, qlora};
use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::quant::Requantised;
use peft_core::{Batch, MergeOptions, Merged, Model, Pass, Peft, Quantised};
use tch::{Device, Kind, Tensor};
use tests::subject::Bert;
use tests::{assert_bits, assert_close, golden, golden_tensors, relative_error, serial};

const CHANGED: usize = 6;

fn adapted() -> Result<Peft> {
    let mut peft = qlora()?.peft;
    peft.load("golden", golden("nf4/qlora_llama"))?;
    Ok(peft)
}

fn logits(peft: &Peft, active: &[&str]) -> Result<Tensor> {
    let g = golden_tensors(&golden("nf4/qlora_llama"))?;
    let batch = Batch::masked(g["input_ids"].copy(), g["attention_mask"].copy());
    Ok(peft.view(active)?.forward(&batch, Pass::eval())?)
}

/// What an adapter changes is dense, the rest stays in 4 bits; so it is written and read.
#[test]
fn dense() -> Result<()> {
    let _serial = serial();
    let peft = adapted()?;
    let merged = peft.merged_with(&["golden"], &MergeOptions::default())?;
    ensure!(merged.requantised.is_empty(), "{:?}", merged.requantised);
    ensure!(merged.to_string() == "exact: no weight was quantised again", "{merged}");
    let merged = merged.peft;
    ensure!(merged.base().nf4s().len() == 14 - CHANGED, "{:?}", merged.base().nf4s().keys());
    assert_close("logits", &logits(&merged, &[])?, &logits(&peft, &["golden"])?, TOL)?;
    let out = tempfile::tempdir()?;
    hub::save(&merged, out.path(), None)?;
    let again = hub::open(out.path(), Device::Cpu, Head::Stored)?.peft;
    assert_bits("again", &logits(&again, &[])?, &logits(&merged, &[])?)
}

/// All of it is in 4 bits again, and the report says what was lost.
#[test]
fn requantised() -> Result<()> {
    let _serial = serial();
    let peft = adapted()?;
    let options = MergeOptions { quantised: Quantised::Requantise, ..MergeOptions::default() };
    let merged = peft.merged_with(&["golden"], &options)?;
    let (before, after) = (peft.base().nf4s(), merged.peft.base().nf4s());
    ensure!(
        after.keys().eq(before.keys()) && merged.requantised.len() == CHANGED,
        "{:?}",
        merged.requantised
    );
    let (exact, dense) = (peft.merged(&["golden"])?.base().tensors(), logits(&peft, &["golden"])?);
    for (name, w) in &after {
        let Some(report) = merged.requantised.iter().find(|r| r.name == *name) else {
            assert_bits(name, &w.dequantise()?, &before[name].dequantise()?)?;
            continue;
        };
        // bitsandbytes' own way from the exact weight: the same numbers, and the error that the report has.
        let exact = exact.get(name).with_context(|| name.clone())?;
        let expected = peft_core::quant::Nf4::quantise(name, exact, &before[name].config())?.dequantise()?;
        assert_bits(name, &w.dequantise()?, &expected)?;
        let lost = f64::try_from((&expected - exact).norm())?;
        let change = f64::try_from((exact - before[name].dequantise()?).norm())?;
        let all = f64::try_from(exact.norm())?;
        ensure!((report.error - lost / all).abs() < 1e-6 * report.error, "{report:?} {}", lost / all);
        ensure!((report.of_change - lost / change).abs() < 1e-6 * report.of_change, "{report:?}");
        ensure!(report.error > 0.02 && report.error < 0.2, "{report:?}");
    }
    one_line(&merged)?;
    // Lossy, and not something else.
    let error = relative_error(&logits(&merged.peft, &[])?, &dense)?;
    ensure!(error > 1e-3 && error < 0.5, "{error}");
    Ok(())
}

/// What a merge that quantises says of itself: that it is lossy, and the worst of it.
fn one_line(merged: &Merged) -> Result<()> {
    let worst = merged.requantised.iter().max_by(|a, b| a.error.total_cmp(&b.error)).context("none")?;
    let drowned = merged.requantised.iter().filter(|r| r.of_change > 1.0).count();
    let (name, error) = (&worst.name, 100.0 * worst.error);
    let expected = format!(
        "lossy: {CHANGED} weights were quantised again, worst error {error:.2} % (`{name}`); \
         it exceeds the change itself at {drowned}"
    );
    ensure!(merged.to_string() == expected, "{merged}\nexpected\n{expected}");
    let report = Requantised { name: "w".into(), error: 0.0912, of_change: 1.4 };
    let expected = "lossy: `w` was quantised again, error 9.12 % of the weight and 140 % of its change";
    ensure!(report.to_string() == expected, "{report}");
    Ok(())
}

/// A bias that is trained beside the codes leaves them alone. PEFT adds `lora_bias` to the merged bias without its scale.
#[test]
fn a_bias_alone() -> Result<()> {
    use peft_core::methods::{Common, LoraConfig};
    use tests::subject::{Subject, move_away};
    let _serial = serial();
    let mut peft = Bert::base()?.quantised(&crate::DOUBLE)?;
    // B is zero: LoRA changes nothing.
    let targets = ["query"].into();
    peft.add("a", LoraConfig { targets, common: Common::classifier(), ..LoraConfig::default() })?;
    let options = MergeOptions { quantised: Quantised::Requantise, ..MergeOptions::default() };
    let merged = peft.merged_with(&["a"], &options)?;
    ensure!(merged.requantised.is_empty(), "{:?}", merged.requantised);
    ensure!(merged.peft.base().nf4s().keys().eq(peft.base().nf4s().keys()), "other weights in 4 bits");
    move_away(peft.params("a")?, 5)?;
    let merged = peft.merged_with(&["a"], &options)?;
    ensure!(merged.requantised.len() == 2, "{:?}", merged.requantised);
    ensure!(
        merged.peft.base().tensors().values().all(|t| t.kind() == Kind::Float || t.kind() == Kind::Int64),
        "dtype"
    );
    Ok(())
}
