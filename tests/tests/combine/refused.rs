//! Calls that cannot be combined, each named by what is wrong.

use crate::{LINEAR, SITE, lora, with};
use anyhow::{Result, ensure};
use peft_core::combine::{Arithmetic, Combination, MajoritySign, Rank, Settings};
use peft_core::methods::PrefixTuningConfig;
use tests::{refused, serial};

#[test]
fn wrong_calls_are_named_and_add_nothing() -> Result<()> {
    let _serial = serial();
    let mut peft = with(vec![lora(4, 8.0, &["ff.0"]), lora(2, 8.0, &["ff.0"]), lora(4, 8.0, &["ff.0"])])?;
    peft.add("prefix", PrefixTuningConfig { num_virtual_tokens: 2, ..Default::default() })?;
    let (a, b, c) = (("a", 0.5), ("b", 0.5), ("c", 0.5));
    let ties = |density| Combination::Factors(Arithmetic::Ties { density, sign: MajoritySign::Total });
    let svd = |rank, clamp| Combination::Svd(Arithmetic::Linear, Rank { rank, clamp });
    type Call<'a> = (&'a str, &'a [(&'a str, f64)], Combination, &'a [&'a str]);
    let calls: &[Call] = &[
        ("new", &[a, b], LINEAR, &["ranks [4, 2] differ", SITE]),
        ("new", &[a, b], ties(0.5), &["ranks [4, 2] differ"]),
        ("new", &[a, c], ties(0.0), &["density", "(0, 1]", "is 0"]),
        ("new", &[a, c], ties(1.5), &["density", "1.5"]),
        ("new", &[a, c], ties(f64::NAN), &["density", "NaN"]),
        ("new", &[a, c], svd(Some(0), None), &["svd_rank", "is 0"]),
        ("new", &[a, c], svd(None, Some(1.5)), &["svd_clamp", "1.5"]),
        ("new", &[a, ("none", 1.0)], LINEAR, &["`none`", "`a`"]),
        ("new", &[a, a], LINEAR, &["`a` exists already"]),
        ("new", &[], LINEAR, &["there is none"]),
        ("new", &[a, ("c", f64::INFINITY)], LINEAR, &["weights", "`c`", "inf"]),
        ("new", &[a, ("prefix", 1.0)], LINEAR, &["`prefix`", "prefix tuning"]),
        ("b", &[a, c], LINEAR, &["`b` exists already"]),
    ];
    let before = peft.names().len();
    for (new, parts, how, words) in calls {
        refused(&format!("{parts:?} {how:?}"), peft.combine(new, parts, *how), words)?;
    }
    ensure!(peft.names().len() == before, "{:?}", peft.names());
    Ok(())
}

#[test]
fn names_of_combinations_are_checked() -> Result<()> {
    let none = Settings::default();
    let half = Settings { density: Some(0.5), ..none };
    for (name, settings, words) in [
        ("ties", none, &["density", "`ties`"] as &[&str]),
        ("dare_linear_svd", none, &["density"]),
        ("linear", half, &["density", "of no use"]),
        ("cat", Settings { svd_rank: Some(3), ..none }, &["svd_rank", "of no use"]),
        ("ties", Settings { svd_clamp: Some(0.5), ..half }, &["svd_clamp"]),
        ("dare_linear", Settings { majority_sign_method: Some(MajoritySign::Total), ..half }, &["majority"]),
        ("tise", none, &["combination_type", "`tise`"]),
        ("linear_svd", none, &["combination_type", "`linear_svd`"]),
        ("cat_svd", none, &["combination_type", "`cat_svd`"]),
        ("catsvd", none, &["combination_type", "`catsvd`"]),
    ] {
        refused(name, Combination::named(name, settings), words)?;
    }
    Ok(())
}
