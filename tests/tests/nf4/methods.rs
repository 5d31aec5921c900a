//! Every method over a base in 4 bits does what it does over the dense weights that the codes stand for.

use crate::{DOUBLE, TOL, dense};
use anyhow::{Result, ensure};
use peft_core::{Pass, Peft};
use tch::Tensor;
use tests::subject::Llama;
use tests::subject::{Subject, logits, loss, move_away};
use tests::table::{Merge, Row};
use tests::{assert_bits, assert_close, on_every_model};

/// Both bases, with the row's adapter `a` moved away from its start.
fn both<M: Subject>(row: &Row) -> Result<[Peft; 2]> {
    let quantised = M::base()?.quantised(&DOUBLE)?;
    let mut both = [dense(&quantised)?, quantised];
    for peft in &mut both {
        tch::manual_seed(1);
        peft.add("a", row.config.method())?;
        move_away(peft.params("a")?, 2)?;
    }
    Ok(both)
}

/// Bits, except where the dense weight lies transposed in memory: sums over it have another order there.
fn assert_same<M: Subject>(what: &str, found: &Tensor, expected: &Tensor) -> Result<()> {
    let transposed = M::base()?.outline().sites.iter().any(|s| s.transposed);
    if transposed { assert_close(what, found, expected, TOL) } else { assert_bits(what, found, expected) }
}

fn the_same<M: Subject>(row: &Row) -> Result<()> {
    let [mut dense, quantised] = both::<M>(row)?;
    ensure!(!quantised.base().nf4s().is_empty(), "nothing is in 4 bits");
    let adapted = logits(&quantised, &["a"])?;
    assert_same::<M>("logits", &adapted, &logits(&dense, &["a"])?)?;

    for ((name, expected), (_, found)) in gradients(&dense)?.iter().zip(gradients(&quantised)?) {
        ensure!(found.defined() == expected.defined(), "{name}: one gradient is missing");
        if expected.defined() {
            assert_close(name, &found, expected, TOL)?;
        }
    }

    let (found, expected) = (quantised.report(&["a"])?, dense.report(&["a"])?);
    ensure!(found == expected, "{found}, expected {expected}");

    if row.merge == Merge::Folds {
        let merged = [&quantised, &dense].map(|peft| logits(&peft.merged(&["a"])?, &[]));
        let [found, expected] = merged;
        assert_same::<M>("merged", &found?, &expected?)?;
    } else {
        let text = |peft: &Peft| peft.merged(&["a"]).err().map(|e| e.to_string());
        ensure!(text(&quantised).is_some() && text(&quantised) == text(&dense), "{:?}", text(&quantised));
    }

    let dir = tempfile::tempdir()?;
    quantised.save("a", dir.path())?;
    dense.load("b", dir.path())?;
    assert_close("from a file", &logits(&dense, &["b"])?, &logits(&dense, &["a"])?, TOL)
}

fn gradients(peft: &Peft) -> Result<Vec<(String, Tensor)>> {
    tch::manual_seed(3);
    loss(peft, &["a"])?.backward();
    Ok(peft.trainable(&["a"])?.into_iter().map(|(name, p)| (name, p.grad())).collect())
}

/// Logits, loss, gradients, counts, merging, files.
#[test]
fn every_method() -> Result<()> {
    on_every_model!(the_same)
}

/// Another dtype is another dtype of what the codes stand for.
fn in_bf16<M: Subject>() -> Result<()> {
    let quantised = M::base()?.quantised(&DOUBLE)?;
    let [found, expected] = [&quantised, &dense(&quantised)?].map(|peft| -> Result<Tensor> {
        let peft = peft.to_kind(tch::Kind::BFloat16)?;
        tests::subject::logits(&peft, &[])
    });
    assert_bits("logits", &found?, &expected?)
}

#[test]
fn another_dtype() -> Result<()> {
    let _serial = tests::serial();
    in_bf16::<tests::subject::Llama>()?;
    in_bf16::<tests::subject::Gpt2>()
}

/// The first layer's input needs no gradient.
#[test]
fn a_view_without_adapters_has_no_graph() -> Result<()> {
    let _serial = tests::serial();
    let peft = Llama::base()?.quantised(&DOUBLE)?;
    let batch = Llama::batch()?.0;
    let logits = peft_core::Model::forward(&peft.view(&[])?, &batch, Pass::train())?;
    ensure!(!logits.requires_grad(), "a graph over frozen weights");
    Ok(())
}
