//! Diff pruning beyond the laws of the table: its formula on every kind of layer, the distribution of its gates, its
//! penalty, and the small adapter that is made of it.

use anyhow::{Context, Result, ensure};
use peft_core::methods::DiffPruningConfig;
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
use peft_core::{Error, Model, Params, Pass, Peft, io};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tests::subject::Tiny;
use tests::subject::{Subject, logits, loss, moved_method};
use tests::{assert_bits, assert_close, refused, relative_error, serial};

/// An embedding, a norm, and linear layers of both kinds of names.
const TARGETS: [&str; 4] = ["embed", "n1", "in_proj", "ff.2"];
const PREFIX: &str = "base_model.model.";

fn diff(targets: &[&str]) -> DiffPruningConfig {
    let targets = targets.into();
    DiffPruningConfig { alpha_init: 0.5, structured: true, targets, ..DiffPruningConfig::default() }
}

fn moved(config: &DiffPruningConfig) -> Result<Peft> {
    moved_method::<Tiny>(Box::new(config.clone()))
}

fn get(params: &Params, name: &str) -> Result<Tensor> {
    Ok(params.find(name).with_context(|| format!("no {name}"))?.detach())
}

/// `z ⊙ w` of every parameter of the base that has one, by its name there.
fn differences(peft: &Peft) -> Result<BTreeMap<String, Tensor>> {
    let params = peft.params("a")?;
    let gate =
        |name: String| -> Result<Tensor> { Ok((get(params, &name)?.sigmoid() * 3.0 - 1.5).clamp(0.0, 1.0)) };
    let mut all = BTreeMap::new();
    for name in params.tensors().keys().filter_map(|n| n.strip_suffix(".w")) {
        let z = gate(format!("{name}.log_alpha"))? * gate(format!("{name}.group_log_alpha"))?;
        let site = name.strip_prefix(PREFIX).context("prefix")?;
        let (site, leaf) = site.split_once(".diff_").context("diff")?;
        let names = [format!("{site}.{leaf}"), format!("{site}_{leaf}")];
        let own = names.into_iter().find(|n| peft.base().find(n).is_some()).context("base")?;
        all.insert(own, get(params, &format!("{name}.w"))? * z);
    }
    Ok(all)
}

/// Logits of the base with these differences added.
fn by_hand(peft: &Peft, differences: &BTreeMap<String, Tensor>) -> Result<Tensor> {
    let mut tensors = peft.base().tensors();
    for (name, d) in differences {
        let sum = &tensors[name] + d;
        tensors.insert(name.clone(), sum);
    }
    let base = Params::from_tensors("by hand", Device::Cpu, tensors)?;
    logits(&peft.over(base)?, &[])
}

#[test]
fn every_kind_of_layer_follows_the_formula() -> Result<()> {
    let _serial = serial();
    let peft = moved(&diff(&TARGETS))?;
    let differences = differences(&peft)?;
    // Weights of the four, in two layers but for the embedding, and biases of all but that.
    ensure!(differences.len() == 4 * 2 - 1 + 3 * 2, "{:?}", differences.keys());
    assert_close("logits", &logits(&peft, &["a"])?, &by_hand(&peft, &differences)?, 1e-5)?;
    let effect = relative_error(&logits(&peft, &["a"])?, &logits(&peft, &[])?)?;
    ensure!(effect > 1e-2, "it does nearly nothing ({effect:.1e})");
    Ok(())
}

/// A gate that is 0 cuts the gradient of w, one that is not between 0 and 1 that of log α: P(z > 0) = σ(log α), and
/// P(z = 1) = σ(log α − log 5).
#[test]
fn gates_are_hard_concrete() -> Result<()> {
    let _serial = serial();
    for alpha in [-1.0, 0.5, 3.0f64] {
        let mut peft = Tiny::base()?;
        peft.add("a", DiffPruningConfig { alpha_init: alpha, structured: false, ..diff(&["head"]) })?;
        let params = peft.params("a")?;
        let w = format!("{PREFIX}head.diff_weight.w");
        params.assign(&w, &(get(params, &w)? + 0.3))?;
        let (view, (batch, classes)) = (peft.view(&["a"])?, Tiny::batch()?);
        let (mut open, mut between, mut all) = (0.0, 0.0, 0.0);
        for seed in 0..60 {
            tch::manual_seed(seed);
            cross_entropy(&view.forward(&batch, Pass::train())?, &classes)?.backward();
            for (name, p) in peft.trainable(&["a"])? {
                let moved = p.grad().ne(0.0).sum(Kind::Float).double_value(&[]);
                if name == w {
                    (open, all) = (open + moved, all + p.numel() as f64);
                } else if name.ends_with("weight.log_alpha") {
                    between += moved;
                }
                let _ = p.grad().zero_();
            }
        }
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (expected, ones) = (sigmoid(alpha), sigmoid(alpha - 5f64.ln()));
        // Four standard deviations of 5,760 draws.
        let fine = |found: f64, p: f64| (found / all - p).abs() < 4.0 * (p * (1.0 - p) / all).sqrt();
        ensure!(fine(open, expected), "{} of the gates are open, expected {expected}", open / all);
        ensure!(
            fine(between, expected - ones),
            "{} are between, expected {}",
            between / all,
            expected - ones
        );
    }
    Ok(())
}

#[test]
fn the_penalty_is_the_expected_number_of_differences() -> Result<()> {
    let _serial = serial();
    let config = DiffPruningConfig { sparsity_penalty: 0.01, ..diff(&["ff.2"]) };
    let peft = moved(&config)?;
    let (mut open, mut all) = (0.0, 0);
    for (name, t) in peft.params("a")?.tensors() {
        if let Some(name) = name.strip_suffix(".log_alpha") {
            let group = get(peft.params("a")?, &format!("{name}.group_log_alpha"))?.sigmoid();
            open += (t.detach().sigmoid() * group).sum(Kind::Double).double_value(&[]);
            all += t.numel();
        }
    }
    let penalty = peft.penalty(&["a"])?.context("no penalty")?.double_value(&[]);
    ensure!((penalty / (0.01 * open) - 1.0).abs() < 1e-5, "{penalty}, expected {}", 0.01 * open);
    let density = config.expected_density(peft.params("a")?)?.context("no density")?;
    ensure!((density / (open / all as f64) - 1.0).abs() < 1e-5, "{density}");

    let mut trainer = Trainer::new(&peft, &["a"], AdamConfig::default(), 0.2, Schedule::Constant)?;
    for _ in 0..15 {
        trainer.step(&loss(&peft, &["a"])?)?;
    }
    let after = config.expected_density(peft.params("a")?)?.context("no density")?;
    ensure!(after < 0.5 * density, "a density of {density} became {after}");
    Ok(())
}

/// The largest tenth of all differences: the values, their number, and nothing else of the first stage.
#[test]
fn pruning_keeps_the_largest() -> Result<()> {
    let _serial = serial();
    let config = diff(&TARGETS);
    let mut peft = moved(&config)?;
    let differences = differences(&peft)?;
    let flat: Vec<Tensor> = differences.values().map(|d| d.flatten(0, -1)).collect();
    let (sorted, _) = Tensor::cat(&flat, 0).abs().sort(0, true);
    let (all, keep) = (sorted.numel(), (sorted.numel() as f64 * 0.1).round() as i64);
    let least = sorted.get(keep - 1).double_value(&[]);

    let (small, tensors) = config.prune(peft.params("a")?, 0.1)?;
    peft.add_with("small", small.clone(), tensors)?;
    let report = peft.report(&["small"])?;
    ensure!(report.trainable == keep, "{} of {all} are kept, not {keep}", report.trainable);
    ensure!(report.all == peft.report(&[])?.all + keep, "{report}");
    let kept = differences
        .iter()
        .map(|(name, d)| (name.clone(), d * d.abs().ge(least).to_kind(Kind::Float)))
        .collect();
    assert_close("logits", &logits(&peft, &["small"])?, &by_hand(&peft, &kept)?, 1e-5)?;
    let merged = peft.merged(&["small"])?;
    assert_close("merged", &logits(&merged, &[])?, &logits(&peft, &["small"])?, 1e-5)?;
    ensure!(peft.penalty(&["small"])?.is_none(), "there is nothing left to make sparse");
    ensure!(small.expected_density(peft.params("small")?)?.is_none(), "there are no gates");
    refused(
        "pruning twice",
        small.prune(peft.params("small")?, 0.1),
        &["diff pruning", "pruned", "already"],
    )?;
    for density in [0.0, 1.5, f64::NAN] {
        let parts = ["diff pruning", "density", "(0, 1]", &format!("is {density}")];
        refused("density", config.prune(peft.params("a")?, density), &parts)?;
    }
    // All of them, but for those whose gate is shut.
    let (_, tensors) = config.prune(peft.params("a")?, 1.0)?;
    let values = tensors.iter().filter(|(name, _)| name.ends_with("values"));
    let nonzero = sorted.ne(0.0).sum(Kind::Int64).int64_value(&[]);
    ensure!(values.map(|(_, t)| t.numel() as i64).sum::<i64>() == nonzero, "zeros are kept");
    Ok(())
}

/// The second stage trains values at fixed places, and its file has them alone; some parameters may have none.
#[test]
fn a_pruned_adapter_trains_and_travels() -> Result<()> {
    let _serial = serial();
    let config = diff(&TARGETS);
    let mut peft = moved(&config)?;
    let (small, tensors) = config.prune(peft.params("a")?, 0.001)?;
    ensure!(tensors.values().any(|t| t.numel() == 0), "every parameter keeps some");
    peft.add_with("small", small, tensors)?;
    let copies = |peft: &Peft| -> Result<BTreeMap<String, Tensor>> {
        let tensors = peft.params("small")?.tensors();
        Ok(tensors.into_iter().map(|(name, t)| (name, t.detach().copy())).collect())
    };
    let (before, plain) = (copies(&peft)?, logits(&peft, &[])?);
    let mut trainer = Trainer::new(&peft, &["small"], AdamConfig::default(), 0.1, Schedule::Constant)?;
    for _ in 0..2 {
        trainer.step(&loss(&peft, &["small"])?)?;
    }
    for (name, t) in copies(&peft)? {
        let same = t.equal(&before[&name]);
        ensure!(same == (name.ends_with("indices") || t.numel() == 0), "{name}: the same is {same}");
    }
    assert_bits("the base", &logits(&peft, &[])?, &plain)?;

    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    peft.save("small", dirs[0].path())?;
    peft.load("again", dirs[0].path())?;
    assert_bits("loaded", &logits(&peft, &["again"])?, &logits(&peft, &["small"])?)?;
    peft.save("again", dirs[1].path())?;
    peft.save("a", dirs[2].path())?;
    let read = |i: usize| std::fs::read(dirs[i].path().join("adapter_model.safetensors"));
    ensure!(read(0)? == read(1)?, "other bytes after load and save");
    let (size, whole) = (read(0)?.len(), read(2)?.len());
    ensure!(size * 20 < whole, "{size} bytes pruned, {whole} before");
    Ok(())
}

#[test]
fn broken_places_are_refused() -> Result<()> {
    let _serial = serial();
    let config = diff(&["head"]);
    let mut peft = moved(&config)?;
    let (small, tensors) = config.prune(peft.params("a")?, 0.1)?;
    let fresh = peft.add("fresh", small.clone());
    let error = refused("without places", fresh, &["diff_weight.indices"])?;
    ensure!(matches!(error, Error::Missing { .. }), "{error:?}");
    let name = format!("{PREFIX}head.diff_weight.indices");
    let good = &tensors[&name];
    let n = good.size1()?;
    ensure!(n > 3, "{n} places");
    let last = Tensor::from_slice(&[3 * 32]).to_kind(good.kind());
    let wrong = [
        ("falling", good.flip([0])),
        ("twice", Tensor::cat(&[good.narrow(0, 0, 1), good.narrow(0, 0, n - 1)], 0)),
        ("negative", good - 97),
        ("beyond", Tensor::cat(&[good.narrow(0, 0, n - 1), last], 0)),
        ("fractions", good.to_kind(Kind::Float) + 0.5),
    ];
    for (what, wrong) in wrong {
        let edited =
            tensors.iter().map(|(k, t)| (k.clone(), if *k == name { wrong.copy() } else { t.copy() }));
        let added = peft.add_with("broken", small.clone(), edited);
        refused(what, added, &["broken", "diff_weight.indices", "rising", "below 96"])?;
    }
    let longer = Tensor::cat(&[good, good], 0);
    let edited = tensors.iter().map(|(k, t)| (k.clone(), if *k == name { longer.copy() } else { t.copy() }));
    let error = refused("longer", peft.add_with("broken", small.clone(), edited), &["diff_weight.indices"])?;
    ensure!(matches!(error, Error::Shape { .. }), "{error:?}");

    let dir = tempfile::tempdir()?;
    peft.add_with("small", small, tensors)?;
    peft.save("small", dir.path())?;
    let kinds: Vec<Kind> = io::tensors::read(dir.path().join("adapter_model.safetensors"))?
        .into_iter()
        .filter(|(name, _)| name.ends_with("indices"))
        .map(|(_, t)| t.kind())
        .collect();
    ensure!(kinds == [Kind::Int, Kind::Int], "{kinds:?}");
    Ok(())
}
