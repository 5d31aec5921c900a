//! LoHa, LoKr and OFT with wrong configurations.

use crate::adapter::load_with;
use crate::methods::add;
use anyhow::{Result, ensure};
use peft_core::Error;
use peft_core::methods::{LoHaConfig, LoKrConfig, OftConfig};
use peft_core::target::{Patterns, Targets};
use tests::serial;

fn targets() -> Targets {
    ["ff.0"].into()
}

fn loha() -> LoHaConfig {
    LoHaConfig { targets: targets(), ..LoHaConfig::default() }
}

fn lokr() -> LoKrConfig {
    LoKrConfig { targets: targets(), ..LoKrConfig::default() }
}

fn oft() -> OftConfig {
    OftConfig { oft_block_size: 4, targets: targets(), ..OftConfig::default() }
}

#[test]
fn loha_and_lokr_check_their_numbers() -> Result<()> {
    let _serial = serial();
    for r in [0, -2] {
        let found = format!("is {r}");
        add("r", LoHaConfig { r, ..loha() }, &["LoHa", "r:", "positive", &found])?;
        add("r", LoKrConfig { r, ..lokr() }, &["LoKr", "r:", "positive", &found])?;
    }
    for p in [1.0, -0.1, f64::NAN] {
        let found = format!("is {p}");
        add("p", LoHaConfig { rank_dropout: p, ..loha() }, &["LoHa", "rank_dropout", "[0, 1)", &found])?;
        add("p", LoKrConfig { module_dropout: p, ..lokr() }, &["LoKr", "module_dropout", "[0, 1)", &found])?;
    }
    add("alpha", LoHaConfig { alpha: f64::NAN, ..loha() }, &["LoHa", "alpha", "finite"])?;
    add("alpha", LoKrConfig { alpha: f64::INFINITY, ..lokr() }, &["LoKr", "alpha", "finite"])?;
    for factor in [0, -2] {
        let found = format!("is {factor}");
        let config = LoKrConfig { decompose_factor: factor, ..lokr() };
        add("factor", config, &["LoKr", "decompose_factor", "-1 or a positive", &found])?;
    }
    let init = |c: &mut serde_json::Value| c["init_weights"] = "lycris".into();
    load_with("bert/lokr", init, &["init_weights", "\"lycris\"", "true, false or \"lycoris\""])
}

#[test]
fn patterns_are_checked() -> Result<()> {
    let _serial = serial();
    let rank = |pattern: &str, r: f64| LoHaConfig { rank_pattern: Patterns::new([(pattern, r)]), ..loha() };
    let error = add("typo", rank("ff.1", 2.0), &["LoHa", "rank_pattern", "`ff.1`", "did you mean `ff.0`"])?;
    ensure!(matches!(error, Error::NoTarget { .. }), "{error:?}");
    for r in [0.0, 1.5, -1.0] {
        add("rank", rank("ff.0", r), &["LoHa", "rank_pattern", "positive integer", &format!("is {r}")])?;
    }
    let alpha = Patterns::new([("ff.1", 2)]);
    add("alpha", LoKrConfig { alpha_pattern: alpha, ..lokr() }, &["LoKr", "alpha_pattern", "`ff.1`"])?;
    let alpha = Patterns::new([("ff.0", "two")]);
    add("alpha", LoKrConfig { alpha_pattern: alpha, ..lokr() }, &["LoKr", "alpha_pattern", "not a number"])?;
    Ok(())
}

#[test]
fn oft_checks_its_numbers() -> Result<()> {
    let _serial = serial();
    let blocks = |r, oft_block_size| OftConfig { r, oft_block_size, ..oft() };
    add("both", blocks(2, 4), &["OFT", "r and oft_block_size", "2 and 4"])?;
    add("none", blocks(0, 0), &["OFT", "r and oft_block_size", "0 and 0"])?;
    add("negative", blocks(0, -4), &["OFT", "oft_block_size", "0 and -4"])?;
    // Eight inputs in eight blocks.
    add("ones", blocks(8, 0), &["OFT", "`layers.0.ff.0`", "8 inputs", "blocks of one"])?;
    let coft = |eps| OftConfig { coft: true, eps, ..oft() };
    for eps in [0.0, -1.0, f64::NAN] {
        add("eps", coft(eps), &["OFT", "eps", "positive", &format!("is {eps}")])?;
    }
    let terms = OftConfig { num_cayley_neumann_terms: 1, ..oft() };
    add("terms", terms, &["OFT", "num_cayley_neumann_terms", "is 1"])?;
    add("dropout", OftConfig { module_dropout: 1.0, ..oft() }, &["OFT", "module_dropout", "[0, 1)"])?;
    Ok(())
}

#[test]
fn they_are_for_linear_layers() -> Result<()> {
    let _serial = serial();
    let targets = || ["embed"].into();
    let parts = ["`embed`", "an embedding, not a linear layer"];
    add("loha", LoHaConfig { targets: targets(), ..loha() }, &parts)?;
    add("lokr", LoKrConfig { targets: targets(), ..lokr() }, &parts)?;
    add("oft", OftConfig { targets: targets(), ..oft() }, &parts)?;
    add("layer", LoHaConfig { layers: [7].into(), ..loha() }, &["layers_to_transform", "layer 7"])?;
    add("layer", LoKrConfig { layers: [7].into(), ..lokr() }, &["layers_to_transform", "layer 7"])?;
    add("layer", OftConfig { layers: [7].into(), ..oft() }, &["layers_to_transform", "layer 7"])?;
    Ok(())
}

/// What PEFT can do and this crate cannot would change numbers.
#[test]
fn other_fields_of_the_file_are_refused() -> Result<()> {
    load_with("bert/oft", |c| c["bias"] = "all".into(), &["bias", "\"all\"", "none"])?;
    load_with("bert/lokr", |c| c["use_effective_conv2d"] = true.into(), &["use_effective_conv2d", "true"])?;
    load_with("bert/loha", |c| c["alpha_pattern"] = [3].as_slice().into(), &["alpha_pattern", "[3]"])?;
    // Files of PEFT before 0.14 have r and no oft_block_size.
    let old = |c: &mut serde_json::Value| {
        c["r"] = 8.into();
        let _ = c.as_object_mut().map(|c| c.remove("oft_block_size"));
    };
    load_with("bert/oft", old, &["r and oft_block_size", "8 and 32"])
}
