//! Several adapters made into one, against Python PEFT and against formulas.

mod refused;

use anyhow::{Context, Result, ensure};
use peft_core::combine::{Arithmetic, Combination, MajoritySign, Rank, Settings};
use peft_core::methods::{Common, Ia3Config, LoraConfig};
use peft_core::target::{Names, Patterns};
use peft_core::{Batch, Model, Pass, Peft};
use peft_core::{hub, io};
use tch::{Device, Kind, Tensor};
use tests::several;
use tests::subject::Tiny;
use tests::subject::{Subject, logits, move_away};
use tests::{assert_close, golden, golden_tensors, refused, serial};

const LINEAR: Combination = Combination::Factors(Arithmetic::Linear);
const SVD: Combination = Combination::Svd(Arithmetic::Linear, Rank { rank: None, clamp: None });

/// Every combination of the golden: logits, the first site's tensors, rank and scale.
#[test]
fn combinations_have_the_numbers_of_peft() -> Result<()> {
    let _serial = serial();
    let dir = golden("llama/x_multi_adapter");
    let g = golden_tensors(&dir)?;
    let mut peft = hub::open(golden("llama/base"), Device::Cpu, hub::Head::Stored)?.peft;
    for name in ["a", "b"] {
        peft.load(name, dir.join(name))?;
    }
    let batch = Batch::masked(g["input_ids"].copy(), g["attention_mask"].copy());
    let meta = io::read_json(dir.join("meta.json"))?;
    let combos = meta["combos"].as_object().context("combos")?;
    for (name, combo) in combos {
        let how = several::how(combo)?;
        let weight = |i: usize| combo["weights"][i].as_f64().context("weight");
        peft.combine(name, &[("a", weight(0)?), ("b", weight(1)?)], how)?;
        let found = peft.view(&[name])?.forward(&batch, Pass::eval())?;
        assert_close(name, &found, &g[&format!("logits.w_{name}")], 1e-5)?;
        let prefix = format!("weight.w_{name}.");
        for (key, expected) in g.iter().filter_map(|(k, t)| Some((k.strip_prefix(&prefix)?, t))) {
            let found = peft.params(name)?.tensors().remove(key).with_context(|| key.to_owned())?;
            assert_close(&format!("{name}: {key}"), &found, expected, 1e-5)?;
        }
        let out = tempfile::tempdir()?;
        peft.save(name, out.path())?;
        let config = io::read_json(out.path().join("adapter_config.json"))?;
        ensure!(config["r"] == combo["r"] && config["lora_alpha"] == combo["lora_alpha"], "{name}: {config}");
        ensure!(config["target_modules"] == serde_json::json!(["down_proj", "q_proj"]), "{config}");
        peft.load("again", out.path())?;
        let again = peft.view(&["again"])?.forward(&batch, Pass::eval())?;
        assert_close("saved and loaded", &again, &found, 0.0)?;
        peft.delete("again")?;
    }
    ensure!(combos.len() == 10, "{} combinations", combos.len());
    Ok(())
}

fn lora(r: i64, alpha: f64, targets: &[&str]) -> LoraConfig {
    LoraConfig { r, lora_alpha: alpha, targets: targets.into(), ..LoraConfig::default() }
}

/// A model with moved adapters `a`, `b` and so on.
fn with(configs: Vec<LoraConfig>) -> Result<Peft> {
    let mut peft = Tiny::base()?;
    for (i, (name, config)) in ["a", "b", "c"].into_iter().zip(configs).enumerate() {
        peft.add(name, config)?;
        move_away(peft.params(name)?, i as i64 + 3)?;
    }
    Ok(peft)
}

/// Merged weights beyond the base's, of one site.
fn delta(peft: &Peft, name: &str, site: &str) -> Result<Tensor> {
    let param = format!("{site}.weight");
    let merged = peft.merged(&[name])?.base().tensors().remove(&param).context("merged")?;
    Ok(merged.to_kind(Kind::Double) - peft.base().find(&param).context("base")?.to_kind(Kind::Double))
}

const SITE: &str = "layers.0.ff.0";

/// cat and a wide enough svd are the weighted sum itself: other ranks, scales, targets and signs, rsLoRA among them.
#[test]
fn exact_combinations_are_the_weighted_sum_of_the_changes() -> Result<()> {
    let _serial = serial();
    let rs = LoraConfig { use_rslora: true, ..lora(3, 5.0, &["ff.0"]) };
    let mut peft = with(vec![rs, lora(4, 6.0, &["ff.0", "ff.2"]), lora(2, 7.0, &["ff.0"])])?;
    let weights = [("a", 0.8), ("b", -0.6), ("c", 1.3)];
    let expected = |site: &str, names: &[&str]| -> Result<Tensor> {
        let parts = weights.iter().filter(|(n, _)| names.contains(n));
        let parts = parts.map(|(n, w)| Ok(delta(&peft, n, site)? * *w)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&parts, 0).sum_dim_intlist(0, false, Kind::Double))
    };
    let (both, one) = (expected(SITE, &["a", "b", "c"])?, expected("layers.1.ff.2", &["b"])?);
    peft.combine("cat", &weights, Combination::Cat)?;
    peft.combine("svd", &weights, Combination::Svd(Arithmetic::Linear, Rank { rank: Some(9), clamp: None }))?;
    for name in ["cat", "svd"] {
        assert_close(name, &delta(&peft, name, SITE)?, &both, 1e-5)?;
        assert_close(name, &delta(&peft, name, "layers.1.ff.2")?, &one, 1e-5)?;
        ensure!(peft.trainable(&[name])?.iter().all(|(_, t)| t.size().contains(&9)), "{name}: not rank 9");
    }
    // The largest rank of the three cannot hold it, and is the closest there is: the error is the rest of the spectrum.
    peft.combine("closest", &weights, SVD)?;
    let spectrum = both.svd(true, true).1;
    let rest = f64::try_from(spectrum.slice(0, 4, None, 1).square().sum(Kind::Double).sqrt())?;
    let error = f64::try_from((delta(&peft, "closest", SITE)? - &both).norm())?;
    ensure!(rest > 1e-3 && (error / rest - 1.0).abs() < 1e-4, "{error} and {rest}");
    Ok(())
}

/// A combination of one adapter at weight 1 is the adapter, in either form; a pruning or a lower rank holds for one as well.
#[test]
fn one_adapter_alone_is_itself() -> Result<()> {
    let _serial = serial();
    let mut peft = with(vec![LoraConfig { use_rslora: true, ..lora(4, 10.0, &["ff.0"]) }])?;
    for (name, how) in [("linear", LINEAR), ("cat", Combination::Cat), ("svd", SVD)] {
        peft.combine(name, &[("a", 1.0)], how)?;
        assert_close(name, &logits(&peft, &[name])?, &logits(&peft, &["a"])?, 1e-6)?;
    }
    let whole = delta(&peft, "a", SITE)?;
    let one = Combination::Svd(Arithmetic::Linear, Rank { rank: Some(1), clamp: None });
    peft.combine("rank 1", &[("a", 1.0)], one)?;
    let (u, s, v) = whole.svd(true, true);
    let closest = u.narrow(1, 0, 1) * s.get(0) * v.narrow(1, 0, 1).tr();
    assert_close("rank 1", &delta(&peft, "rank 1", SITE)?, &closest, 1e-5)?;
    let half = Arithmetic::MagnitudePrune { density: 0.5 };
    let full = Rank { rank: Some(whole.size()[0].min(whole.size()[1])), clamp: None };
    peft.combine("pruned", &[("a", 1.0)], Combination::Svd(half, full))?;
    let kept = delta(&peft, "pruned", SITE)?;
    let zeros = f64::try_from(kept.abs().lt(1e-6).mean(Kind::Double))?;
    ensure!((zeros - 0.5).abs() < 0.02, "{zeros} of the values are zero");
    Ok(())
}

/// Embeddings and biases are part of the sum; a bias is beyond what pruning is defined for, and DoRA is no sum at all.
#[test]
fn embeddings_and_biases_are_combined_and_dora_is_refused() -> Result<()> {
    let _serial = serial();
    let biased = |r, alpha| LoraConfig { lora_bias: true, ..lora(r, alpha, &["ff.0"]) };
    let mut peft = with(vec![lora(4, 8.0, &["embed", "ff.0"]), lora(3, 9.0, &["embed"]), biased(4, 12.0)])?;
    let pair = [("a", 0.7), ("b", -0.4)];
    peft.combine("cat", &pair, Combination::Cat)?;
    let expected = delta(&peft, "a", "embed")? * 0.7 - delta(&peft, "b", "embed")? * 0.4;
    assert_close("embedding", &delta(&peft, "cat", "embed")?, &expected, 1e-5)?;

    peft.add("d", biased(4, 6.0))?;
    move_away(peft.params("d")?, 9)?;
    let pair = [("c", 0.7), ("d", -0.4)];
    let bias = |peft: &Peft, name: &str| -> Result<Tensor> {
        let key = format!("{SITE}.bias");
        Ok(peft.merged(&[name])?.base().find(&key).context("b")? - peft.base().find(&key).context("b")?)
    };
    let expected = bias(&peft, "c")? * 0.7 - bias(&peft, "d")? * 0.4;
    for (name, how) in [("sum", Combination::Cat), ("linear", LINEAR), ("svd", SVD)] {
        peft.combine(name, &pair, how)?;
        assert_close(name, &bias(&peft, name)?, &expected, 1e-5)?;
    }
    let ties = Combination::Factors(Arithmetic::Ties { density: 0.5, sign: MajoritySign::Total });
    refused("pruned biases", peft.combine("new", &pair, ties), &[SITE, "bias"])?;

    peft.add("dora", LoraConfig { use_dora: true, ..lora(4, 8.0, &["ff.0"]) })?;
    let e = peft.combine("new", &[("c", 1.0), ("dora", 1.0)], Combination::Cat);
    refused("DoRA", e, &["layers.0.ff.0", "not low-rank"])?;
    refused("DoRA", peft.view_rows(&[Some("dora"), None]), &["layers.0.ff.0", "not low-rank"])?;
    peft.add("tuned", LoraConfig { bias: serde_json::from_value("all".into())?, ..lora(4, 8.0, &["ff.0"]) })?;
    move_away(peft.params("tuned")?, 9)?;
    let e = peft.combine("new", &[("a", 1.0), ("tuned", 1.0)], Combination::Cat);
    refused("biases of the model", e, &["bias", "the model itself"])?;
    ensure!(!peft.names().contains(&"new"), "was added");
    Ok(())
}

/// Ranks by pattern are filled up with zeros; targets that lists cannot say become the sites' full names.
#[test]
fn patterns_and_filters_are_resolved() -> Result<()> {
    let _serial = serial();
    let patterned = |rank: i64| LoraConfig {
        rank_pattern: Patterns::new([(SITE, rank)]),
        alpha_pattern: Patterns::new([("layers.1.ff.0", 3.0)]),
        ..lora(4, 8.0, &["ff.0"])
    };
    let first = LoraConfig { layers: [0].into(), ..lora(4, 6.0, &["ff.0", "ff.2"]) };
    let mut peft = with(vec![patterned(6), patterned(6), first])?;
    let sum = |peft: &Peft, names: [&str; 2], site: &str| -> Result<Tensor> {
        Ok(delta(peft, names[0], site)? * 0.7 + delta(peft, names[1], site)? * 0.4)
    };
    for (name, other, ranks) in [("ab", "b", 12), ("ac", "c", 10)] {
        peft.combine(name, &[("a", 0.7), (other, 0.4)], Combination::Cat)?;
        for site in [SITE, "layers.1.ff.0", "layers.0.ff.2"] {
            let expected = sum(&peft, ["a", other], site)?;
            if f64::try_from(expected.abs().max())? > 0.0 {
                assert_close(site, &delta(&peft, name, site)?, &expected, 1e-5)?;
            }
        }
        let config = peft.adapter_config(name)?.context("config")?;
        ensure!(config["r"] == ranks && config["rank_pattern"] == serde_json::json!({}), "{config}");
        let full = serde_json::json!([SITE, "layers.0.ff.2", "layers.1.ff.0"]);
        let targets = if other == "b" { serde_json::json!(["ff.0"]) } else { full };
        ensure!(config["target_modules"] == targets, "{config}");
    }
    // The ranks differ at one site alone.
    refused("linear", peft.combine("new", &[("a", 1.0), ("c", 1.0)], LINEAR), &["ranks [6, 4]", SITE])?;
    peft.combine("linear", &[("a", 1.0), ("b", 1.0)], LINEAR)?;
    Ok(())
}

/// (IA)³: the weighted sum of the vectors; one that an adapter lacks is 1.
#[test]
fn vectors_are_summed() -> Result<()> {
    let _serial = serial();
    let mut peft = Tiny::base()?;
    let ia3 = |targets: &[&str], feedforward: &[&str]| Ia3Config {
        targets: targets.into(),
        feedforward_modules: Some(Names::list(feedforward.iter().copied())),
        ..Ia3Config::default()
    };
    peft.add("a", ia3(&["ff.0", "ff.2"], &["ff.2"]))?;
    peft.add("b", ia3(&["ff.0"], &[]))?;
    for (name, seed) in [("a", 3), ("b", 4)] {
        move_away(peft.params(name)?, seed)?;
    }
    peft.combine("ab", &[("a", 0.7), ("b", 0.6)], LINEAR)?;
    let l = |name: &str, site: &str| -> Result<Tensor> {
        let key = format!("base_model.model.layers.1.{site}.ia3_l");
        Ok(peft.params(name)?.find(&key).context(key)?.detach())
    };
    assert_close("both", &l("ab", "ff.0")?, &(l("a", "ff.0")? * 0.7 + l("b", "ff.0")? * 0.6), 1e-6)?;
    assert_close("one", &l("ab", "ff.2")?, &(l("a", "ff.2")? * 0.7 + 0.6), 1e-6)?;
    refused("svd", peft.combine("new", &[("a", 1.0), ("b", 1.0)], SVD), &["(IA)³", "combination_type"])?;
    peft.add("lora", lora(4, 8.0, &["ff.0"]))?;
    let e = peft.combine("new", &[("a", 1.0), ("lora", 1.0)], LINEAR);
    refused("LoRA and (IA)³", e, &["`lora` is LORA", "`a` is IA3"])?;
    Ok(())
}

/// DARE keeps a share of the values and makes up for the others; a density of 1 is no pruning.
#[test]
fn dare_keeps_the_expectation() -> Result<()> {
    let _serial = serial();
    let mut peft = with(vec![lora(4, 8.0, &["ff.0"]), lora(4, 8.0, &["ff.0"])])?;
    let pair = [("a", 0.5), ("b", 0.5)];
    let dare = |density| Combination::Factors(Arithmetic::DareLinear { density });
    peft.combine("all", &pair, dare(1.0))?;
    peft.combine("linear", &pair, LINEAR)?;
    assert_close("density 1", &logits(&peft, &["all"])?, &logits(&peft, &["linear"])?, 0.0)?;
    tch::manual_seed(3);
    peft.combine("dare", &[("a", 1.0)], dare(0.25))?;
    let key = format!("base_model.model.{SITE}.lora_A.weight");
    let tensor = |name: &str| peft.params(name)?.find(&key).context("A");
    let (pruned, whole) = (tensor("dare")?, tensor("a")?);
    let kept = pruned.ne(0.0);
    let share = f64::try_from(kept.to_kind(Kind::Double).mean(Kind::Double))?;
    ensure!((0.15..0.35).contains(&share), "{share} kept");
    // Scale s = 8/4 goes into A and B by its root.
    let expected = whole * kept.to_kind(Kind::Float) * (2f64.sqrt() / 0.25);
    assert_close("kept values", &pruned, &expected, 1e-6)?;
    tch::manual_seed(3);
    peft.combine(
        "dare svd",
        &pair,
        Combination::named("dare_ties_svd", Settings { density: Some(0.5), ..Settings::default() })?,
    )?;
    Ok(())
}

#[test]
fn clamping_bounds_both_factors() -> Result<()> {
    let _serial = serial();
    let mut peft = with(vec![lora(4, 8.0, &["ff.0"]), lora(4, 8.0, &["ff.0"])])?;
    let pair = [("a", 0.5), ("b", 0.5)];
    let svd = |clamp| Combination::Svd(Arithmetic::Linear, Rank { rank: None, clamp });
    peft.combine("free", &pair, svd(None))?;
    peft.combine("cut", &pair, svd(Some(0.9)))?;
    let all = |name: &str| -> Result<Tensor> {
        let site = peft.params(name)?.tensors().into_iter().filter(|(k, _)| k.contains(SITE));
        Ok(Tensor::cat(&site.map(|(_, t)| t.flatten(0, -1)).collect::<Vec<_>>(), 0).abs())
    };
    let (free, cut) = (all("free")?, all("cut")?);
    // The 90 % quantile of values with both signs is the 80 % quantile of sizes.
    let most = free.quantile_scalar(0.8, 0, false, "linear");
    assert_close("largest value", &cut.max(), &most, 1e-2)?;
    Ok(())
}

/// A module that one of them trains whole comes along; two that do are refused.
#[test]
fn whole_modules_come_along() -> Result<()> {
    let _serial = serial();
    let saving = Common { modules_to_save: Some(vec!["n2".into()]), ..Common::default() };
    let with_norm = LoraConfig { common: saving, ..lora(4, 8.0, &["ff.0"]) };
    let mut peft = with(vec![with_norm.clone(), lora(4, 8.0, &["ff.0"]), with_norm])?;
    peft.combine("ab", &[("a", 1.0), ("b", 0.0)], Combination::Cat)?;
    assert_close("with the norms", &logits(&peft, &["ab"])?, &logits(&peft, &["a"])?, 1e-6)?;
    let e = peft.combine("ac", &[("a", 1.0), ("c", 1.0)], Combination::Cat);
    refused("two copies", e, &["modules_to_save", "`c`", "n2"])?;
    Ok(())
}
