//! What an adapted model computes, and how many parameters that takes.

use anyhow::{Context, Result, ensure};
use peft_core::report::commas;
use peft_core::{Batch, Error, Pass};
use tch::{Device, Kind, Tensor};
use tests::on_every_model;
use tests::subject::{Subject, fresh, logits, moved};
use tests::table::{Merge, Row, Start};
use tests::{assert_bits, assert_close, refused, relative_error};

/// Catches an up projection that is not zero, a scale or a bias that acts before training, an overlay that is not a
/// copy; and, the other way round, a method that does nothing at all.
fn start<M: Subject>(row: &Row) -> Result<()> {
    let peft = fresh::<M>(&row.config)?;
    let (base, adapted) = (logits(&peft, &[])?, logits(&peft, &["a"])?);
    let error = relative_error(&adapted, &base)?;
    match row.start {
        Start::Same => assert_bits("fresh adapter", &adapted, &base)?,
        Start::Near(most) => ensure!(error > 0.0 && error < most, "starts {error:.1e} away from the base"),
        Start::Other => ensure!(error > 1e-2, "starts {error:.1e} away from the base"),
    }
    let error = relative_error(&logits(&moved::<M>(&row.config)?, &["a"])?, &base)?;
    ensure!(error > 1e-2, "changes nothing ({error:.1e}) when its parameters are changed");
    Ok(())
}

#[test]
fn starts_where_the_paper_says() -> Result<()> {
    on_every_model!(start)
}

/// Catches every formula that exists twice: `alpha` for `alpha/r`, a delta transposed, a copy that merging forgets.
fn merge<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    match row.merge {
        Merge::Folds => {
            let merged = peft.merged(&["a"])?;
            assert_close("merged logits", &logits(&merged, &[])?, &logits(&peft, &["a"])?, 1e-5)?;
            ensure!(merged.base().trainable().is_empty(), "the merged model is trainable");
        }
        Merge::Refused(method, site) => {
            let error = refused("merging", peft.merged(&["a"]), &[method, site, "cannot be merged"])?;
            let typed =
                matches!(error, Error::NotMergeable { method: m, site: s } if m == method && s == site);
            ensure!(typed, "not Error::NotMergeable with method and site");
        }
    }
    Ok(())
}

#[test]
fn forward_is_merged_forward() -> Result<()> {
    on_every_model!(merge)
}

/// Catches a parameter at the wrong site, of a wrong size, or counted twice.
fn count<M: Subject>(row: &Row) -> Result<()> {
    let (peft, all) = (fresh::<M>(&row.config)?, M::sizes().all);
    ensure!(peft.report(&[])?.all == all, "the base has {}, {all} by its formula", peft.report(&[])?.all);
    let report = peft.report(&["a"])?;
    ensure!(report.trainable == row.count, "{} trained, {} by the formula", report.trainable, row.count);
    let all = all + row.more;
    ensure!(report.all == all, "{} in all, {all} by the formula", report.all);
    let line = format!("trainable params: {} || all params: {} ||", commas(row.count), commas(all));
    ensure!(report.to_string().starts_with(&line), "{report}");
    let rows: i64 = report.rows.iter().map(|r| r.trainable).sum();
    ensure!(rows == row.count, "the report's rows add up to {rows}");
    Ok(())
}

#[test]
fn parameters_are_counted_by_the_formula() -> Result<()> {
    on_every_model!(count)
}

/// Catches a constructor that draws, keeps state between calls, or changes what it reads.
fn pure<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let float = (Kind::Float, Device::Cpu);
    tch::manual_seed(5);
    let expected = Tensor::randn([8], float);
    tch::manual_seed(5);
    let (first, second) = (peft.view(&["a"])?, peft.view(&["a"])?);
    assert_bits("libtorch's generator after building", &Tensor::randn([8], float), &expected)?;
    let (batch, _) = M::batch()?;
    let numbers = first.forward(&batch, Pass::eval())?;
    assert_bits("second view", &second.forward(&batch, Pass::eval())?, &numbers)?;
    assert_bits("second call", &first.forward(&batch, Pass::eval())?, &numbers)
}

#[test]
fn a_view_built_twice_is_the_same() -> Result<()> {
    on_every_model!(pure)
}

/// Catches draws from anywhere but libtorch's generator, and an order that depends on a hash map.
fn seeded<M: Subject>(row: &Row) -> Result<()> {
    let (one, two) = (fresh::<M>(&row.config)?, fresh::<M>(&row.config)?);
    let (one, two) = (one.params("a")?.tensors(), two.params("a")?.tensors());
    ensure!(one.keys().eq(two.keys()), "other names");
    one.iter().try_for_each(|(name, t)| assert_bits(name, &two[name], t))
}

#[test]
fn one_seed_makes_one_adapter() -> Result<()> {
    on_every_model!(seeded)
}

/// Catches an adapter that is not `Send` (at compile time), and one that leans on its thread.
fn travels<M: Subject + 'static>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let (view, (batch, _)) = (peft.view(&["a"])?, M::batch()?);
    let expected = view.forward(&batch, Pass::eval())?.detach();
    let thread = std::thread::spawn(move || {
        tch::set_num_threads(1);
        view.forward(&batch, Pass::eval()).map(|y| y.detach())
    });
    assert_bits("logits of the other thread", &thread.join().ok().context("the thread panicked")??, &expected)
}

#[test]
fn a_view_is_send() -> Result<()> {
    on_every_model!(travels)
}

/// Catches a mask that a longer sequence outgrew, and rows that see each other.
fn rows_alone<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let (view, (batch, _)) = (peft.view(&["a"])?, M::batch()?);
    let together = view.forward(&batch, Pass::eval())?;
    for i in 0..batch.ids()?.size()[0] {
        let ids = batch.ids()?.get(i);
        let length =
            batch.mask.as_ref().map_or(ids.size()[0], |m| m.get(i).sum(Kind::Int64).int64_value(&[]));
        let alone = view.forward(&Batch::dense(ids.narrow(0, 0, length).unsqueeze(0)), Pass::eval())?;
        let mut row = together.narrow(0, i, 1);
        if M::sizes().causal {
            row = row.narrow(1, 0, alone.size()[1]);
        }
        assert_close(&format!("row {i}, alone"), &alone, &row, 1e-5)?;
    }
    Ok(())
}

#[test]
fn a_row_is_what_it_is_alone() -> Result<()> {
    on_every_model!(rows_alone)
}

/// Catches dropout in evaluation, dropout that is missing in training, and dropout that has a generator of its own.
fn dropout<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let (view, (batch, _)) = (peft.view(&["a"])?, M::batch()?);
    let run = |pass| {
        tch::manual_seed(3);
        view.forward(&batch, pass)
    };
    let (eval, train) = (run(Pass::eval())?, run(Pass::train())?);
    assert_bits("training with the same seed", &run(Pass::train())?, &train)?;
    if !row.dropout {
        return assert_bits("training", &train, &eval);
    }
    let error = relative_error(&train, &eval)?;
    ensure!(error > 1e-3, "training differs from evaluation by {error:.1e} alone");
    Ok(())
}

#[test]
fn dropout_is_for_training() -> Result<()> {
    on_every_model!(dropout)
}
