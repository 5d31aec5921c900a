//! What the methods there are do with such a model: all of it is trained, counted, merged, written and read.

use super::{SHAPES, Sequence, features, partial, sequence};
use crate::{logits, merged, shake};
use anyhow::{Result, ensure};
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::{BitFitConfig, Common, DiffPruningConfig, FullConfig, LoraConfig};
use peft_core::quant::Nf4Config;
use peft_core::seam::{Adapter, Init, Kernel, LowRank, Method, MethodConfig, Place, Site, Weights};
use peft_core::train::cross_entropy;
use peft_core::{Model, Params, Pass};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use tests::{assert_bits, assert_close, refused, relative_error, serial};

/// LoRA of the head, with modules that are trained whole beside.
fn beside(modules: &[&str]) -> LoraConfig {
    let modules_to_save = Some(modules.iter().map(|m| (*m).to_owned()).collect());
    let common = Common { modules_to_save, ..Common::default() };
    LoraConfig { common, ..LoraConfig::new(2).targets(["head"]) }
}

/// A method, and the tensors that it trains in this model, without `base_model.model.`.
fn cases() -> Vec<(&'static str, Box<dyn MethodConfig>, Vec<&'static str>)> {
    let all = SHAPES.map(|(name, _)| name).to_vec();
    let (a, b) = ("head.lora_A.weight", "head.lora_B.weight");
    let diff = DiffPruningConfig::default().targets(["conv", "up"]);
    let diffs = ["w", "log_alpha"].map(|leaf| {
        ["conv.diff_weight", "conv.diff_bias", "up.diff_weight", "up.diff_bias"]
            .map(|of| format!("{of}.{leaf}"))
    });
    let diffs = diffs.into_iter().flatten().map(|name| &*name.leak()).collect();
    vec![
        ("full", FullConfig::default().into(), all),
        ("partial, bare", partial(&["gate", "scale"]).into(), vec!["mix.gate", "scale"]),
        (
            "partial, modules",
            partial(&["mix", "up"]).into(),
            vec!["mix.bias", "mix.gate", "up.bias", "up.weight"],
        ),
        ("bitfit", BitFitConfig::default().into(), vec!["conv.bias", "up.bias", "mix.bias", "head.bias"]),
        ("saved", beside(&["mix"]).into(), vec![a, b, "mix.bias", "mix.gate"]),
        ("saved kernel", beside(&["up"]).into(), vec![a, b, "up.bias", "up.weight"]),
        ("diff", diff.into(), diffs),
    ]
}

/// What is trained, what it starts as, that it counts, that merging and files have all of it.
#[test]
fn every_law_holds_for_bare_parameters_and_own_kernels() -> Result<()> {
    for (what, method, mut trained) in cases() {
        let _serial = serial();
        let (mut peft, batch, dir) = (sequence()?, features(), tempfile::tempdir()?);
        let plain = logits(&peft, &[], &batch)?;
        let before: BTreeMap<_, _> = peft.base().tensors().into_iter().map(|(n, t)| (n, t.copy())).collect();
        let estimate = Blueprint::of(Sequence)?;
        peft.add("mine", method)?;
        let found: Vec<String> = peft.trainable(&["mine"])?.into_iter().map(|(name, _)| name).collect();
        trained.sort_unstable();
        ensure!(
            found.iter().map(|n| n.trim_start_matches("base_model.model.")).eq(trained),
            "{what}: {found:?}"
        );
        assert_close(what, &logits(&peft, &["mine"], &batch)?, &plain, 1e-6)?;

        shake(peft.params("mine")?)?;
        let adapted = logits(&peft, &["mine"], &batch)?;
        ensure!(relative_error(&adapted, &plain)? > 1e-2, "{what}: nothing is adapted");
        assert_close(what, &merged(&peft, &["mine"], &batch)?, &adapted, 1e-5)?;
        for (name, t) in peft.base().tensors() {
            assert_bits(&name, &t, &before[&name])?;
        }

        peft.save("mine", dir.path())?;
        let warnings = peft.load("again", dir.path())?;
        ensure!(warnings.is_empty(), "{what}: {warnings:?}");
        assert_bits(what, &logits(&peft, &["again"], &batch)?, &adapted)?;
        let config = peft_core::io::read_json(dir.path().join(peft_core::io::adapter::CONFIG))?;
        let estimated = estimate.estimate(peft_core::methods::from_json(config, what)?, &Setup::default())?;
        ensure!(estimated.report == peft.report(&["mine"])?, "{what}: {}", estimated.report);

        let loss = cross_entropy(
            &peft.view(&["mine"])?.forward(&batch, Pass::train())?,
            &Tensor::from_slice(&[0i64, 2, 1]),
        )?;
        loss.backward();
        // A gate that is open has no gradient.
        for (name, p) in
            peft.trainable(&["mine"])?.into_iter().filter(|(name, _)| !name.ends_with("log_alpha"))
        {
            ensure!(
                p.grad().defined() && f64::try_from(p.grad().abs().sum(Kind::Float))? > 0.0,
                "{what}: {name}"
            );
        }
    }
    Ok(())
}

#[test]
fn copies_count_as_they_should() -> Result<()> {
    let _serial = serial();
    let mut peft = sequence()?;
    for (what, method, _) in cases() {
        peft.add(what, method)?;
    }
    let report = |name: &str| -> Result<(i64, i64)> {
        let report = peft.report(&[name])?;
        Ok((report.trainable, report.all))
    };
    let all: i64 = SHAPES.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
    ensure!(report("full")? == (all, all), "{:?}", report("full")?);
    ensure!(report("partial, bare")? == (6, all), "{:?}", report("partial, bare")?);
    ensure!(report("bitfit")? == (6 + 5 + 5 + 3, all), "{:?}", report("bitfit")?);
    // PEFT counts `modules_to_save` beside the original.
    let lora = 2 * (5 + 3);
    ensure!(report("saved")? == (lora + 10, all + lora + 10), "{:?}", report("saved")?);
    Ok(())
}

/// Both bring the whole of it; the last one named counts.
#[test]
fn of_two_copies_of_a_bare_parameter_the_last_counts() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (sequence()?, features());
    for name in ["x", "y"] {
        peft.add(name, partial(&["gate", "scale"]))?;
        shake(peft.params(name)?)?;
    }
    let y = logits(&peft, &["y"], &batch)?;
    assert_bits("x, y", &logits(&peft, &["x", "y"], &batch)?, &y)?;
    assert_bits("merged", &merged(&peft, &["x", "y"], &batch)?, &y)?;
    refused(
        "mixed rows",
        peft.view_rows(&[Some("x"), None]).map(drop),
        &["`mix.gate`", "a copy of a parameter"],
    )?;
    Ok(())
}

/// Linear layers alone are quantised; what is trained of the others is as over a dense base.
#[test]
fn four_bits_leave_them_alone() -> Result<()> {
    for (what, method, _) in cases() {
        let _serial = serial();
        let (mut peft, batch) = (sequence()?.quantised(&Nf4Config::default())?, features());
        ensure!(peft.base().nf4s().keys().eq(["head.weight"]), "{:?}", peft.base().nf4s().keys());
        peft.add("mine", method)?;
        shake(peft.params("mine")?)?;
        assert_close(what, &merged(&peft, &["mine"], &batch)?, &logits(&peft, &["mine"], &batch)?, 1e-5)?;
    }
    Ok(())
}

/// An author's own method, that scales weights of any shape: `W' = l W`, `b' = l b`.
#[derive(Debug)]
pub(super) struct Scale {
    /// Claims that its change is low-rank, which it is not of any kernel but a matrix.
    pub claims: bool,
}

impl Method for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> peft_core::Result<Option<Box<dyn Adapter>>> {
        let Place::Layer { kernel: Kernel::Own(_), .. } = site.place else { return Ok(None) };
        let l = site.param(params, "l", &[1], Init::Constant(1.0))?;
        Ok(Some(Box::new(Scaled { l, claims: self.claims })))
    }
}

#[derive(Debug)]
struct Scaled {
    l: Tensor,
    claims: bool,
}

impl Adapter for Scaled {
    fn reweight(&self, w: Weights) -> peft_core::Result<Weights> {
        let bias = w.bias.map(|b| b.f_mul(&self.l)).transpose()?;
        Ok(Weights { weight: w.weight.f_mul(&self.l)?, bias })
    }

    fn low_rank(&self) -> peft_core::Result<Option<LowRank>> {
        let (a, b) = (self.l.f_view([1, 1])?, self.l.f_view([1, 1])?);
        Ok(self.claims.then_some(LowRank { a, b, scale: 1.0, bias: None }))
    }
}

#[test]
fn reweight_is_enough_on_own_kernels() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (sequence()?, features());
    peft.add("scale", Scale { claims: false })?;
    ensure!(peft.params("scale")?.len() == 2, "{:?}", peft.params("scale")?.tensors().keys());
    let plain = logits(&peft, &[], &batch)?;
    assert_bits("fresh", &logits(&peft, &["scale"], &batch)?, &plain)?;
    shake(peft.params("scale")?)?;
    let adapted = logits(&peft, &["scale"], &batch)?;
    ensure!(relative_error(&adapted, &plain)? > 1e-2, "nothing is scaled");
    assert_close("merged", &merged(&peft, &["scale"], &batch)?, &adapted, 1e-6)
}
