//! What training changes, and what it must not; other dtypes below the adapter.

use anyhow::{Context, Result, ensure};
use peft_core::io::tensors;
use peft_core::train::{AdamConfig, Schedule, Trainer};
use peft_core::{Params, Peft};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use tests::on_every_model;
use tests::subject::{Subject, logits, loss, move_away, moved};
use tests::table::{Merge, Row};
use tests::{assert_bits, assert_close, relative_error};

fn copies(params: &Params) -> BTreeMap<String, Tensor> {
    params.tensors().into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

fn assert_all_bits(what: &str, found: &Params, expected: &BTreeMap<String, Tensor>) -> Result<()> {
    let found = found.tensors();
    ensure!(found.keys().eq(expected.keys()), "{what}: other names");
    expected
        .iter()
        .try_for_each(|(name, t)| assert_bits(&format!("{what}: {name}"), &found[name].detach(), t))
}

fn train(peft: &Peft, name: &str, steps: usize) -> Result<()> {
    let mut trainer = Trainer::new(peft, &[name], AdamConfig::default(), 1e-2, Schedule::Constant)?.clip(1.0);
    for _ in 0..steps {
        trainer.step(&loss(peft, &[name])?)?;
    }
    Ok(())
}

/// Catches an overlay that shares memory with the base, an optimizer over too much, and a base that is not frozen.
fn base<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let (before, plain) = (copies(peft.base()), logits(&peft, &[])?);
    let (adapter, adapted) = (copies(peft.params("a")?), logits(&peft, &["a"])?);
    train(&peft, "a", 3)?;
    assert_all_bits("base", peft.base(), &before)?;
    assert_bits("the base's logits", &logits(&peft, &[])?, &plain)?;
    for (name, t) in peft.base().tensors() {
        ensure!(!t.requires_grad() && !t.grad().defined(), "{name} of the base has a gradient");
    }
    for (name, t) in peft.params("a")?.tensors() {
        let trained = relative_error(&t.detach(), &adapter[&name])? > 0.0;
        ensure!(trained != row.frozen.contains(&name), "{name}: trained is {trained}");
    }
    ensure!(relative_error(&logits(&peft, &["a"])?, &adapted)? > 1e-3, "training changed nothing");
    Ok(())
}

#[test]
fn training_leaves_the_base_alone() -> Result<()> {
    on_every_model!(base)
}

/// Catches a parameter that is made but not used, a `detach` too many, and a gradient that explodes.
fn gradient<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    loss(&peft, &["a"])?.backward();
    let trained = peft.trainable(&["a"])?;
    let tensors = peft.params("a")?.len();
    ensure!(trained.len() + row.frozen.len() == tensors, "a tensor of the adapter is not trainable");
    for (name, p) in trained {
        let grad = p.grad();
        ensure!(grad.defined() && grad.size() == p.size(), "no gradient of {name}");
        let most = f64::try_from(grad.abs().max())?;
        // One number added to all keys moves all scores of a query alike, and softmax does not see it.
        let blind = name.ends_with("key.bias");
        ensure!(most.is_finite() && (blind || most > 1e-6), "the gradient of {name} is at most {most:.1e}");
    }
    Ok(())
}

#[test]
fn every_parameter_gets_a_gradient() -> Result<()> {
    on_every_model!(gradient)
}

/// Catches a path that carries values but no gradient, and a factor that is in one of them alone: along the gradient
/// the loss rises by the gradient's length.
fn slope<M: Subject>(row: &Row) -> Result<()> {
    if !row.slope {
        return Ok(());
    }
    let peft = moved::<M>(&row.config)?;
    // Every call draws the batch first, from one seed: dropout is the same in all of them.
    loss(&peft, &["a"])?.backward();
    let trained = peft.trainable(&["a"])?;
    for (name, p) in trained {
        let (value, grad) = (p.detach().copy(), p.grad().copy());
        let length = f64::try_from(grad.norm())?;
        let rise = |by: f64| -> Result<f64> {
            peft.params("a")?.assign(&name, &(&value + &grad * (by / length)))?;
            Ok(f64::try_from(loss(&peft, &["a"])?)?)
        };
        // The rise has to stand out of f32's rounding, and the loss should be straight that far.
        let step = (2e-3 / length).clamp(1e-4, 1e-2);
        if length > 1e-3 {
            let found = (rise(step)? - rise(-step)?) / (2.0 * step);
            let error = (found / length - 1.0).abs();
            ensure!(error < 0.05, "{name}: the loss rises by {found:.4}, the gradient is {length:.4}");
        }
        peft.params("a")?.assign(&name, &value)?;
    }
    Ok(())
}

#[test]
fn the_gradient_is_the_slope() -> Result<()> {
    on_every_model!(slope)
}

/// Catches parameters that are shared by name, and state of a model that outlives the view.
fn apart<M: Subject>(row: &Row) -> Result<()> {
    let mut peft = moved::<M>(&row.config)?;
    let (alone, plain) = (logits(&peft, &["a"])?, logits(&peft, &[])?);
    tch::manual_seed(21);
    peft.add("b", row.config.method())?;
    move_away(peft.params("b")?, 22)?;
    assert_bits("a after adding b", &logits(&peft, &["a"])?, &alone)?;
    let (b, b_tensors) = (logits(&peft, &["b"])?, copies(peft.params("b")?));
    ensure!(relative_error(&b, &alone)? > 1e-3, "a and b are the same adapter");
    train(&peft, "a", 2)?;
    assert_bits("b after training a", &logits(&peft, &["b"])?, &b)?;
    assert_all_bits("b after training a", peft.params("b")?, &b_tensors)?;
    peft.delete("a")?;
    assert_bits("b after deleting a", &logits(&peft, &["b"])?, &b)?;
    assert_bits("the base", &logits(&peft, &[])?, &plain)
}

#[test]
fn two_adapters_do_not_see_each_other() -> Result<()> {
    on_every_model!(apart)
}

/// Catches a store that holds on to the tensors it is given: a second adapter made from the first one's.
fn copied<M: Subject>(row: &Row) -> Result<()> {
    let mut peft = moved::<M>(&row.config)?;
    let tensors = peft.params("a")?.tensors();
    peft.add_with("b", row.config.method(), tensors)?;
    let b = logits(&peft, &["b"])?;
    assert_bits("the copy", &b, &logits(&peft, &["a"])?)?;
    train(&peft, "a", 1)?;
    assert_bits("the copy after training the original", &logits(&peft, &["b"])?, &b)
}

#[test]
fn an_adapter_made_from_anothers_tensors_is_a_copy() -> Result<()> {
    on_every_model!(copied)
}

/// bfloat16 has 8 bits, and two layers of them: 4e-2, or three times what the model loses by it without an adapter
/// (the weights of the goldens are large).
fn bf16_tolerance<M: Subject>() -> Result<f64> {
    let base = M::base()?;
    let half = base.to_kind(Kind::BFloat16)?;
    let own = relative_error(&logits(&half, &[])?, &logits(&base, &[])?)?;
    Ok(f64::max(4e-2, 3.0 * own))
}

/// Whether an adapter's tensor is a copy of a parameter of the base, which keeps the base's dtype.
fn is_copy(peft: &Peft, name: &str) -> bool {
    let own = name.strip_prefix("base_model.model.").or_else(|| name.strip_prefix("base_model."));
    let own = own.map(|own| own.replace(".base_layer.", ".").replace(".ln_tuning_layers.", "."));
    own.is_some_and(|own| peft.outline().params.contains(&own))
}

fn assert_like_f32<M: Subject>(found: &Tensor, f32: &Tensor, plain: &Tensor) -> Result<()> {
    let (effect, tolerance) = (relative_error(f32, plain)?, bf16_tolerance::<M>()?);
    ensure!(effect > 2.0 * tolerance, "the adapter is too weak ({effect:.1e}) for this test");
    assert_close("logits on a bf16 base", found, f32, tolerance)
}

/// Catches an adapter that is rounded to the base's dtype, a sum that changes it, and an optimizer that takes one
/// dtype alone.
fn bf16<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let (f32, plain) = (logits(&peft, &["a"])?, logits(&peft, &[])?);
    let mut half = peft.to_kind(Kind::BFloat16)?;
    half.add("a", row.config.method())?;
    for (name, t) in peft.params("a")?.tensors() {
        half.params("a")?.assign(&name, &t.detach())?;
    }
    let logits = logits(&half, &["a"])?;
    ensure!(logits.kind() == Kind::BFloat16, "logits are {:?}", logits.kind());
    assert_like_f32::<M>(&logits, &f32, &plain)?;

    loss(&half, &["a"])?.backward();
    for (name, p) in half.trainable(&["a"])? {
        let expected = if is_copy(&half, &name) { Kind::BFloat16 } else { Kind::Float };
        let kinds = (p.kind(), p.grad().kind());
        ensure!(
            kinds == (expected, expected),
            "{name} and its gradient are {kinds:?}, expected {expected:?}"
        );
    }
    train(&half, "a", 2)?;
    let after = f64::try_from(loss(&half, &["a"])?)?;
    ensure!(after.is_finite(), "the loss is {after} after two steps");

    if row.merge == Merge::Folds {
        let mut whole = half.to_kind(Kind::Float)?;
        whole.add("a", row.config.method())?;
        for (name, t) in half.params("a")?.tensors() {
            whole.params("a")?.assign(&name, &t.detach())?;
        }
        let expected = whole.merged(&["a"])?.base().tensors();
        let merged = half.merged(&["a"])?.base().tensors();
        ensure!(merged.keys().eq(expected.keys()), "{:?} after merging", merged.keys());
        for (name, t) in merged {
            assert_bits(&format!("{name} after merging"), &t, &expected[&name].to_kind(Kind::BFloat16))?;
        }
    }
    Ok(())
}

#[test]
fn an_f32_adapter_works_on_a_bf16_base() -> Result<()> {
    on_every_model!(bf16)
}

/// Saves the moved adapter, in `kind`, and loads it onto `base`.
fn reloaded(peft: &Peft, mut base: Peft, kind: Kind) -> Result<Tensor> {
    let dir = tempfile::tempdir()?;
    peft.save("a", dir.path())?;
    let file = dir.path().join("adapter_model.safetensors");
    let tensors = tensors::read(&file)?.into_iter().map(|(name, t)| (name, t.to_kind(kind))).collect();
    tensors::write(&file, &tensors)?;
    base.load("a", dir.path())?;
    logits(&base, &["a"]).context("forward")
}

/// Catches copies of the base's parameters (the head, above all) whose dtype is the file's and not the model's.
fn f32_file<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let found = reloaded(&peft, peft.to_kind(Kind::BFloat16)?, Kind::Float)?;
    assert_like_f32::<M>(&found, &logits(&peft, &["a"])?, &logits(&peft, &[])?)
}

#[test]
fn an_f32_file_loads_onto_a_bf16_base() -> Result<()> {
    on_every_model!(f32_file)
}

/// The other way round: a file that somebody saved in bf16, on an f32 base.
fn bf16_file<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let found = reloaded(&peft, M::base()?, Kind::BFloat16)?;
    assert_like_f32::<M>(&found, &logits(&peft, &["a"])?, &logits(&peft, &[])?)
}

#[test]
fn a_bf16_file_loads_onto_an_f32_base() -> Result<()> {
    on_every_model!(bf16_file)
}
