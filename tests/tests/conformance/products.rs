//! What LoHa, LoKr and OFT promise beyond the laws of the table: dropout of outputs and of calls, rotations that are
//! rotations, a constraint that holds.

use anyhow::{Context, Result, ensure};
use peft_core::methods::{LoHaConfig, LoKrConfig, OftConfig};
use peft_core::seam::MethodConfig;
use peft_core::target::Targets;
use peft_core::{Model, Pass, Peft};
use tch::{Kind, Tensor};
use tests::subject::Tiny;
use tests::subject::{Subject, logits, moved_method};
use tests::{assert_bits, assert_close, relative_error, serial};

/// The last layer alone, so that its adapter's output can be seen.
fn head() -> Targets {
    ["head"].into()
}

/// What the adapter of the head adds in evaluation, and in training with 40 seeds.
fn added(method: impl MethodConfig + 'static) -> Result<(Tensor, Vec<Tensor>)> {
    let peft = moved_method::<Tiny>(Box::new(method))?;
    let (base, batch) = (logits(&peft, &[])?, Tiny::batch()?.0);
    let view = peft.view(&["a"])?;
    let train = (0..40).map(|seed| {
        tch::manual_seed(seed);
        Ok(view.forward(&batch, Pass::train())?.detach() - &base)
    });
    Ok((logits(&peft, &["a"])? - &base, train.collect::<Result<_>>()?))
}

/// Outputs are dropped whole, and the others multiplied by `factor(kept, all)`.
fn drops_outputs(method: impl MethodConfig + 'static, factor: fn(f64, f64) -> f64) -> Result<()> {
    let _serial = serial();
    let (eval, train) = added(method)?;
    let outputs = eval.size()[1];
    let mut seen = vec![0; outputs as usize + 1];
    for delta in train {
        let kept: Vec<i64> =
            (0..outputs).filter(|i| delta.select(1, *i).abs().max().double_value(&[]) > 0.0).collect();
        seen[kept.len()] += 1;
        for i in &kept {
            let expected = eval.select(1, *i) * factor(kept.len() as f64, outputs as f64);
            assert_close(&format!("output {i} of {kept:?}"), &delta.select(1, *i), &expected, 1e-4)?;
        }
    }
    ensure!(seen.iter().all(|n| *n > 0), "numbers of outputs that were kept: {seen:?}");
    Ok(())
}

#[test]
fn rank_dropout_drops_outputs() -> Result<()> {
    let loha = LoHaConfig { rank_dropout: 0.5, targets: head(), ..LoHaConfig::default() };
    drops_outputs(loha, |kept, all| all / kept)?;
    let lokr = LoKrConfig { rank_dropout: 0.5, r: 1, alpha: 5.0, targets: head(), ..LoKrConfig::default() };
    drops_outputs(lokr.clone(), |_, _| 1.0)?;
    drops_outputs(LoKrConfig { rank_dropout_scale: true, ..lokr }, |kept, all| all / kept)
}

/// A call has all of the adapter or nothing.
fn drops_calls(method: impl MethodConfig + 'static, p: f64) -> Result<()> {
    let _serial = serial();
    let (eval, train) = added(method)?;
    let mut dropped = 0;
    for delta in &train {
        if delta.abs().max().double_value(&[]) == 0.0 {
            dropped += 1;
        } else {
            assert_bits("the adapter", delta, &eval)?;
        }
    }
    let share = f64::from(dropped) / train.len() as f64;
    ensure!((share - p).abs() < 0.2, "{share} of the calls were dropped, with a probability of {p}");
    Ok(())
}

#[test]
fn module_dropout_drops_calls() -> Result<()> {
    drops_calls(LoHaConfig { module_dropout: 0.7, targets: head(), ..LoHaConfig::default() }, 0.7)?;
    drops_calls(LoKrConfig { module_dropout: 0.3, targets: head(), ..LoKrConfig::default() }, 0.3)
}

fn oft() -> OftConfig {
    OftConfig { oft_block_size: 8, targets: head(), ..OftConfig::default() }
}

/// `W Wᵀ` of the head.
fn gram(peft: &Peft) -> Result<Tensor> {
    let w = peft.base().find("head.weight").context("head.weight")?;
    Ok(w.matmul(&w.tr()))
}

/// An orthogonal map of the input keeps the angles between outputs; a short series does so nearly.
#[test]
fn rotations_keep_angles() -> Result<()> {
    let _serial = serial();
    let errors = [
        OftConfig { use_cayley_neumann: false, ..oft() },
        OftConfig { num_cayley_neumann_terms: 12, ..oft() },
        OftConfig { num_cayley_neumann_terms: 5, ..oft() },
        OftConfig { num_cayley_neumann_terms: 2, ..oft() },
    ]
    .map(|config| -> Result<f64> {
        let peft = moved_method::<Tiny>(Box::new(config))?;
        let effect = relative_error(&logits(&peft, &["a"])?, &logits(&peft, &[])?)?;
        ensure!(effect > 0.1, "it turns nothing ({effect:.1e})");
        relative_error(&gram(&peft.merged(&["a"])?)?, &gram(&peft)?)
    });
    let [exact, twelve, five, two] = errors;
    let (exact, twelve, five, two) = (exact?, twelve?, five?, two?);
    ensure!(exact < 1e-6, "the exact map is off by {exact:.1e}");
    ensure!(exact < twelve && twelve < five && five < two, "{exact:.1e} {twelve:.1e} {five:.1e} {two:.1e}");
    Ok(())
}

/// As in PEFT, the exact map and the series turn in opposite directions.
#[test]
fn the_two_maps_are_inverse() -> Result<()> {
    let _serial = serial();
    let exact = OftConfig { use_cayley_neumann: false, ..oft() };
    let series = OftConfig { num_cayley_neumann_terms: 60, ..oft() };
    let mut peft = moved_method::<Tiny>(Box::new(exact))?;
    let small = peft.params("a")?.tensors().into_iter().map(|(name, t)| (name, t.detach() * 0.5));
    let small: Vec<_> = small.collect();
    for (name, t) in &small {
        peft.params("a")?.assign(name, t)?;
    }
    peft.add_with("b", series, small)?;
    assert_close("there and back", &logits(&peft, &["a", "b"])?, &logits(&peft, &[])?, 1e-5)
}

/// Constrained OFT computes with the projection at every call, and leaves it to the optimizer's step to write it.
#[test]
fn the_constraint_of_coft_holds() -> Result<()> {
    let _serial = serial();
    let peft = moved_method::<Tiny>(Box::new(OftConfig { coft: true, eps: 0.1, ..oft() }))?;
    let name = "base_model.model.head.oft_R.weight";
    let rows = || -> Result<Tensor> { Ok(peft.params("a")?.find(name).context("oft_R")?.detach().copy()) };
    // ‖Q‖, from its upper triangle.
    let norm =
        |rows: &Tensor| (rows.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float) * 2).sqrt();
    let (before, plain) = (rows()?, logits(&peft, &[])?);
    let adapted = logits(&peft, &["a"])?;
    assert_bits("the parameter after a call", &rows()?, &before)?;
    let most = norm(&before).max().double_value(&[]);
    ensure!(most > 1.0, "the constraint holds already: {most}");

    peft.after_step(&["a"], 1)?;
    let after = rows()?;
    // Four blocks: 0.1/√4 each.
    assert_close("norms", &norm(&after), &Tensor::from_slice(&[0.05f32; 4]), 1e-5)?;
    let shrunk = &before * (norm(&before).reciprocal() * 0.05).unsqueeze(1);
    assert_close("directions", &after, &shrunk, 1e-5)?;
    assert_close("logits", &logits(&peft, &["a"])?, &adapted, 1e-5)?;
    let effect = relative_error(&adapted, &plain)?;
    ensure!(effect > 1e-3, "it turns nothing ({effect:.1e})");
    Ok(())
}
