//! `penalty`, `after_step` and `overlay`: what a method does to training.

use crate::{TINY, batch, classes, get, logits, merged, shake, tiny};
use anyhow::{Context, Result, ensure};
use peft_core::methods::LoraConfig;
use peft_core::seam::{Counting, Overlay};
use peft_core::seam::{Dims, Input, Method, Prompt};
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
use peft_core::{Batch, Model, Params, Pass, Peft};
use std::sync::{Arc, Mutex};
use tch::{Kind, Tensor};
use tests::{assert_bits, assert_close, relative_error, serial};

/// A trained vector that is added to every word; `λ ‖v‖²` on the loss; clamped to ±`bound` after every step.
#[derive(Debug, Clone)]
struct Bounded {
    lambda: f64,
    bound: f64,
    /// Step and largest gradient at every call of `after_step`.
    seen: Arc<Mutex<Vec<(u64, f64)>>>,
}

impl Bounded {
    fn new(lambda: f64, bound: f64) -> Self {
        Self { lambda, bound, seen: Arc::default() }
    }

    fn seen(&self) -> Vec<(u64, f64)> {
        self.seen.lock().map(|seen| seen.clone()).unwrap_or_default()
    }
}

impl Method for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn prompt(
        &self,
        dims: &Dims,
        words: Option<&Tensor>,
        params: &Params,
    ) -> peft_core::Result<Option<Box<dyn Prompt>>> {
        let sizes = dims.sizes()?;
        assert!(words.is_some_and(|w| w.size() == [sizes.vocab, sizes.hidden]), "the base's word embedding");
        let v = params.get_or_else("v", &[dims.sizes()?.hidden], || {
            Ok(Tensor::f_randn([dims.sizes()?.hidden], (Kind::Float, params.device()))?)
        })?;
        Ok(Some(Box::new(Shift(v))))
    }

    fn penalty(&self, params: &Params) -> peft_core::Result<Option<Tensor>> {
        let v = params.get("v", &[TINY.hidden])?;
        Ok(Some(v.f_square()?.f_sum(Kind::Float)?.f_mul_scalar(self.lambda)?))
    }

    fn after_step(&self, params: &Params, step: u64) -> peft_core::Result<()> {
        let v = params.get("v", &[TINY.hidden])?;
        let largest = v.grad().f_abs()?.f_max()?.f_double_value(&[])?;
        if let Ok(mut seen) = self.seen.lock() {
            seen.push((step, largest));
        }
        params.assign("v", &v.f_detach()?.f_clamp(-self.bound, self.bound)?)
    }
}

#[derive(Debug)]
struct Shift(Tensor);

impl Prompt for Shift {
    fn rewrite(&self, input: Input, _: Pass<'_>) -> peft_core::Result<Input> {
        Ok(Input { embeds: input.embeds.f_add(&self.0)?, ..input })
    }
}

fn trainer(peft: &Peft, active: &[&str]) -> Result<Trainer> {
    Ok(Trainer::new(peft, active, AdamConfig::adam(), 0.05, Schedule::Constant)?)
}

fn loss(peft: &Peft, active: &[&str], batch: &Batch) -> Result<Tensor> {
    Ok(cross_entropy(&peft.view(active)?.forward(batch, Pass::train())?, &classes())?)
}

/// `d/dv (CE + λ v²) = dCE/dv + 2 λ v`, and the step reports the sum.
#[test]
fn a_penalty_is_part_of_the_loss() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    let method = Bounded::new(0.3, 1e9);
    peft.add("b", method.clone())?;
    let v = peft.params("b")?.find("v").context("v")?;
    let before = v.detach().copy();

    let plain = loss(&peft, &["b"], &batch)?;
    plain.backward();
    let expected = v.grad().copy() + &before * 0.6;
    let sum = f64::try_from(&plain)? + 0.3 * f64::try_from(before.square().sum(Kind::Double))?;

    let report = trainer(&peft, &["b"])?.step(&loss(&peft, &["b"], &batch)?)?;
    ensure!((report.loss - sum).abs() < 1e-5 * sum, "loss {}, expected {sum}", report.loss);
    assert_close("gradient", &v.grad(), &expected, 1e-5)?;
    Ok(())
}

/// Penalties of two adapters add up; one that is not named has no say.
#[test]
fn only_the_named_adapters_have_a_penalty() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    peft.add("x", Bounded::new(0.5, 1.0))?;
    peft.add("y", Bounded::new(2.0, 1.0))?;
    let targets = ["ff.0"].into();
    peft.add("lora", LoraConfig { targets, ..LoraConfig::default() })?;
    let alone = |name: &str, lambda: f64| -> Result<f64> {
        Ok(lambda * f64::try_from(get(peft.params(name)?, "v").square().sum(Kind::Double))?)
    };
    ensure!(peft.penalty(&["lora"])?.is_none() && peft.penalty(&[])?.is_none(), "LoRA has a penalty");
    for (names, expected) in [
        (vec!["x"], alone("x", 0.5)?),
        (vec!["lora", "y"], alone("y", 2.0)?),
        (vec!["x", "lora", "y"], alone("x", 0.5)? + alone("y", 2.0)?),
    ] {
        let found = f64::try_from(peft.penalty(&names)?.context("no penalty")?)?;
        ensure!((found - expected).abs() < 1e-5 * expected, "{names:?}: {found}, expected {expected}");
    }
    Ok(())
}

/// Once a step, numbered from 1, while the gradients are there; what it changes is what the next view sees.
#[test]
fn after_step_is_called_once_a_step() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    let (method, other) = (Bounded::new(0.0, 0.01), Bounded::new(0.0, 0.01));
    peft.add("b", method.clone())?;
    peft.add("other", other.clone())?;
    let mut trainer = trainer(&peft, &["b"])?;
    for _ in 0..3 {
        trainer.step(&loss(&peft, &["b"], &batch)?)?;
        let most = f64::try_from(get(peft.params("b")?, "v").abs().max())?;
        ensure!(most <= 0.01f32.into(), "{most} after clamping");
    }
    let seen = method.seen();
    ensure!(seen.iter().map(|(step, _)| *step).eq(1..=3), "steps {seen:?}");
    ensure!(seen.iter().all(|(_, gradient)| *gradient > 0.0), "gradients {seen:?}");
    ensure!(other.seen().is_empty(), "an adapter that is not trained heard of it");

    // A step that is refused is no step.
    let diverged = Tensor::from(f64::NAN);
    tests::refused("a loss that is not a number", trainer.step(&diverged), &["NaN"])?;
    ensure!(method.seen().len() == 3 && trainer.steps() == 3, "a refused step was counted");
    Ok(())
}

/// BitFit (Ben Zaken et al. 2022): all biases, and nothing else.
#[derive(Debug)]
struct BitFit(Counting);

impl Method for BitFit {
    fn name(&self) -> &'static str {
        "BitFit"
    }

    fn overlay(&self, param: &str) -> Option<Overlay> {
        param.ends_with("bias").then(|| Overlay {
            key: format!("bitfit.{param}"),
            counting: self.0,
            saved_beside: false,
        })
    }
}

#[test]
fn bitfit_is_an_overlay() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    peft.add("bitfit", BitFit(Counting::Replaces))?;
    peft.add("beside", BitFit(Counting::Adds))?;
    let (d, f, c) = (TINY.hidden, TINY.ffn, TINY.classes);
    let biases = TINY.layers * (3 * d + d + f + d + 2 * d) + c;
    let all: i64 = peft.base().tensors().values().map(|t| t.numel() as i64).sum();
    let report = |name: &str| -> Result<String> { Ok(peft.report(&[name])?.to_string()) };
    let line = |all: i64| {
        let (percent, all) = (100.0 * biases as f64 / all as f64, peft_core::report::commas(all));
        format!("trainable params: {biases} || all params: {all} || trainable%: {percent:.4}")
    };
    ensure!(report("bitfit")? == line(all), "{}\n{}", report("bitfit")?, line(all));
    ensure!(report("beside")? == line(all + biases), "{}\n{}", report("beside")?, line(all + biases));

    let base: Vec<Tensor> = peft.base().tensors().into_values().map(|t| t.copy()).collect();
    let plain = logits(&peft, &[], &batch)?;
    assert_bits("fresh", &logits(&peft, &["bitfit"], &batch)?, &plain)?;
    let mut trainer = trainer(&peft, &["bitfit"])?;
    for _ in 0..3 {
        trainer.step(&loss(&peft, &["bitfit"], &batch)?)?;
    }
    for ((name, t), before) in peft.base().tensors().iter().zip(&base) {
        assert_bits(name, t, before)?;
    }
    for (name, t) in peft.params("bitfit")?.tensors() {
        let original = get(peft.base(), name.trim_start_matches("bitfit."));
        ensure!(!t.equal(&original), "{name} was not trained");
    }
    let found = logits(&peft, &["bitfit"], &batch)?;
    ensure!(relative_error(&found, &plain)? > 1e-2, "training changed nothing");
    assert_bits("merged", &merged(&peft, &["bitfit"], &batch)?, &found)
}

/// The last adapter named has the last word over a parameter that two of them copy.
#[test]
fn the_last_overlay_wins() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    for name in ["x", "y"] {
        peft.add(name, BitFit(Counting::Replaces))?;
        shake(peft.params(name)?)?;
    }
    let (x, y) = (logits(&peft, &["x"], &batch)?, logits(&peft, &["y"], &batch)?);
    assert_bits("x, y", &logits(&peft, &["x", "y"], &batch)?, &y)?;
    assert_bits("x, y merged", &merged(&peft, &["x", "y"], &batch)?, &y)?;
    assert_bits("y, x", &logits(&peft, &["y", "x"], &batch)?, &x)
}
