//! Adapters of any mergeable method as LoRA of a chosen rank.

use anyhow::{Result, ensure};
use peft_core::Peft;
use peft_core::methods::{FullConfig, LoraConfig, PrefixTuningConfig};
use peft_core::seam::MethodConfig;
use tests::on_every_model;
use tests::subject::Tiny;
use tests::subject::{Subject, logits, move_away, moved};
use tests::table::{Merge, Row};
use tests::{assert_close, refused, relative_error, serial};

fn lora(r: i64) -> LoraConfig {
    let targets = ["ff.0", "ff.2"].into();
    LoraConfig { r, lora_alpha: 2.5 * r as f64, targets, ..LoraConfig::default() }
}

fn with(method: impl Into<Box<dyn MethodConfig>>) -> Result<Peft> {
    let mut peft = Tiny::base()?;
    peft.add("a", method)?;
    move_away(peft.params("a")?, 3)?;
    Ok(peft)
}

#[test]
fn a_lora_of_the_same_rank_is_the_same() -> Result<()> {
    let _serial = serial();
    let mut peft = with(lora(4))?;
    let conversion = peft.to_lora("a", "same", 4)?;
    ensure!(conversion.sites.len() == 4 && conversion.whole.is_empty(), "{conversion:?}");
    ensure!(conversion.sites.iter().all(|s| 1.0 - s.kept < 1e-12 && s.energy > 0.1), "{conversion:?}");
    assert_close("rank 4", &logits(&peft, &["same"])?, &logits(&peft, &["a"])?, 1e-6)?;
    // A rank to spare is filled with zeros.
    peft.to_lora("a", "wide", 7)?;
    assert_close("rank 7", &logits(&peft, &["wide"])?, &logits(&peft, &["a"])?, 1e-6)?;
    let dir = tempfile::tempdir()?;
    peft.save("same", dir.path())?;
    peft.load("again", dir.path())?;
    assert_close("from its file", &logits(&peft, &["again"])?, &logits(&peft, &["same"])?, 0.0)
}

/// The share that is kept is that of the squared weights, and grows with the rank as the logits come closer.
#[test]
fn the_share_is_that_of_the_change_that_is_kept() -> Result<()> {
    let _serial = serial();
    let mut peft = with(lora(6))?;
    let expected = logits(&peft, &["a"])?;
    let (mut last, mut share) = (f64::INFINITY, 0.0);
    for rank in 1..=6 {
        let name = format!("r{rank}");
        let conversion = peft.to_lora("a", &name, rank)?;
        let change = |name: &str| -> Result<Vec<f64>> {
            let merged = peft.merged(&[name])?.base().tensors();
            let sites = conversion.sites.iter().map(|s| {
                let key = format!("{}.weight", s.site);
                Ok(f64::try_from((&merged[&key] - &peft.base().tensors()[&key]).norm())?.powi(2))
            });
            sites.collect()
        };
        for ((site, whole), kept) in conversion.sites.iter().zip(change("a")?).zip(change(&name)?) {
            ensure!((site.energy / whole - 1.0).abs() < 1e-4, "{site:?}: {whole}");
            ensure!((site.kept - kept / whole).abs() < 1e-4, "{site:?}: {kept} of {whole}");
        }
        let error = relative_error(&logits(&peft, &[&name])?, &expected)?;
        ensure!(error < last && conversion.kept() > share, "rank {rank}: {error}, {conversion}");
        (last, share) = (error, conversion.kept());
    }
    ensure!(last < 1e-6 && share > 1.0 - 1e-12, "{last}, {share}");
    Ok(())
}

/// A change of all weights: norms and biases are kept whole, and everything at full rank.
#[test]
fn full_fine_tuning_loses_some_and_says_how_much() -> Result<()> {
    let _serial = serial();
    let mut peft = with(FullConfig::default())?;
    let expected = logits(&peft, &["a"])?;
    let conversion = peft.to_lora("a", "narrow", 2)?;
    ensure!((0.01..0.9).contains(&conversion.kept()), "{conversion}");
    ensure!(conversion.whole.iter().any(|p| p == "layers.0.n2.weight"), "{conversion:?}");
    let words = conversion.to_string();
    ensure!(words.contains("% of the change kept") && words.contains("stored whole"), "{words}");
    let conversion = peft.to_lora("a", "wide", 128)?;
    ensure!(1.0 - conversion.kept() < 1e-9, "{conversion}");
    assert_close("full rank", &logits(&peft, &["wide"])?, &expected, 1e-5)
}

#[test]
fn wrong_calls_are_named() -> Result<()> {
    let _serial = serial();
    let mut peft = with(PrefixTuningConfig { num_virtual_tokens: 2, ..Default::default() })?;
    peft.add("lora", lora(4))?;
    for (name, new, rank, words) in [
        ("a", "new", 4, &["prefix tuning", "not a change of weights"] as &[&str]),
        ("lora", "new", 0, &["rank", "is 0"]),
        ("none", "new", 4, &["`none`"]),
        ("lora", "a", 4, &["`a` exists already"]),
    ] {
        refused(name, peft.to_lora(name, new, rank), words)?;
    }
    ensure!(peft.names() == ["a", "lora"], "{:?}", peft.names());
    Ok(())
}

/// Every method that folds becomes a LoRA of full rank that computes the same; what does not fold is refused.
fn full_rank<M: Subject>(row: &Row) -> Result<()> {
    let mut peft = moved::<M>(&row.config)?;
    if let Merge::Refused(..) = row.merge {
        ensure!(peft.to_lora("a", "lora", 4).is_err(), "was accepted");
        return Ok(());
    }
    let conversion = match peft.to_lora("a", "lora", 128) {
        // Norms alone.
        Err(e) if e.to_string().contains("changes no linear layer") => return Ok(()),
        conversion => conversion?,
    };
    ensure!(1.0 - conversion.kept() < 1e-6, "{conversion}");
    assert_close("full rank", &logits(&peft, &["lora"])?, &logits(&peft, &["a"])?, 1e-5)
}

#[test]
fn every_method_that_folds_becomes_a_lora() -> Result<()> {
    on_every_model!(full_rank)
}
