//! The word embedding and the output layer, which are one tensor in many models: what changes one of them, alone or two
//! at a time, is neither lost nor doubled, whatever becomes of it.

use anyhow::{Context, Result, bail, ensure};
use peft_core::combine::Combination;
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::quant::Nf4Config;
use peft_core::{Pass, Peft};
use tch::Device;
use tests::subject::{Bert, Gpt2, Llama, Qwen2};
use tests::subject::{Subject, in_halves, logits, move_trained};
use tests::table::{Row, words::beside};
use tests::{assert_bits, assert_close, on_every_hub_model, relative_error, serial};

/// Catches a merged model whose file is another one: a head that is untied and not stored, or stored and called tied.
fn saved_is_merged<M: Subject>(row: &Row) -> Result<()> {
    let mut peft = M::base()?;
    tch::manual_seed(1);
    peft.add("a", row.config.method())?;
    move_trained(peft.params("a")?, 2)?;
    let Ok(merged) = peft.merged(&["a"]) else { return Ok(()) };
    assert_close("merged", &logits(&merged, &[])?, &logits(&peft, &["a"])?, 1e-5)?;
    same_from_file(&merged)
}

fn same_from_file(merged: &Peft) -> Result<()> {
    let dir = tempfile::tempdir()?;
    hub::save(merged, dir.path(), None)?;
    let opened = hub::open(dir.path(), Device::Cpu, Head::Stored)?;
    ensure!(opened.unused.is_empty() && opened.fresh.is_empty(), "unused: {:?}", opened.unused);
    assert_bits("from its file", &logits(&opened.peft, &[])?, &logits(merged, &[])?)
}

#[test]
fn a_saved_model_is_the_merged_one() -> Result<()> {
    on_every_hub_model!(saved_is_merged)
}

/// Two adapters that both touch the words, `a` below `b`: merged, saved, side by side in a batch, combined and converted.
fn pair<M: Subject>(peft: &mut Peft, a: &Row, b: &Row) -> Result<()> {
    for (name, row, seed) in [("a", a, 3), ("b", b, 4)] {
        tch::manual_seed(seed);
        peft.add(name, row.config.method())?;
        move_trained(peft.params(name)?, seed + 10)?;
    }
    let both = ["a", "b"];
    if peft.view(&both).is_err() {
        ensure!(peft.merged(&both).is_err(), "no view, and merged all the same");
        return Ok(());
    }
    let stacked = logits(peft, &both)?;
    let effect = relative_error(&stacked, &logits(peft, &[])?)?;
    ensure!(effect > 1e-2, "changes nothing ({effect:.1e})");
    let merged = peft.merged(&both)?;
    assert_close("merged", &logits(&merged, &[])?, &stacked, 1e-5)?;
    same_from_file(&merged)?;

    let alone = [logits(peft, &["a"])?, logits(peft, &["b"])?, logits(peft, &[])?];
    if let Ok(rows) = peft.view_rows(&[Some("a"), Some("b"), None, Some("a")]) {
        let mixed = rows.forward(&M::batch()?.0, Pass::eval())?;
        for (row, which) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
            let expected = alone.get(which).context("alone")?.narrow(0, row, 1);
            assert_close(&format!("row {row}"), &mixed.narrow(0, row, 1), &expected, 1e-5)?;
        }
    }
    if peft.combine("sum", &[("a", 1.0), ("b", 1.0)], Combination::Cat).is_ok() {
        assert_close("combined", &logits(peft, &["sum"])?, &stacked, 1e-5)?;
    }
    for (name, own) in both.iter().zip(&alone) {
        if peft.to_lora(name, "lora", 128).is_ok() {
            assert_close(&format!("{name} as LoRA"), &logits(peft, &["lora"])?, own, 1e-5)?;
            peft.delete("lora")?;
        }
    }
    Ok(())
}

fn pairs<M: Subject>() -> Vec<String> {
    let rows = beside(&M::sizes(), &M::common());
    assert!(rows.len() > 5, "{} rows", rows.len());
    let mut broken = Vec::new();
    for a in &rows {
        for b in &rows {
            for quantised in [false, true] {
                let base = || -> Result<Peft> {
                    let base = M::base()?;
                    Ok(if quantised { base.quantised(&Nf4Config::default())? } else { base })
                };
                if let Err(e) = base().and_then(|mut peft| pair::<M>(&mut peft, a, b)) {
                    let base = if quantised { "NF4" } else { "dense" };
                    broken.push(format!("{} ({base}), {} below {}: {e:#}", M::NAME, a.name, b.name));
                }
            }
        }
    }
    broken
}

#[test]
fn words_and_output_in_pairs() -> Result<()> {
    in_halves(&[pairs::<Qwen2>, pairs::<Bert>], &[pairs::<Gpt2>, pairs::<Llama>])
}

/// The laws above say nothing where everything is refused.
#[test]
fn what_can_be_combined_and_mixed_is() -> Result<()> {
    let _serial = serial();
    let rows = beside(&Qwen2::sizes(), &Qwen2::common());
    let lora = ["LoRA, words", "LoRA, words and layers"];
    let lora: Vec<&Row> = rows.iter().filter(|r| lora.contains(&r.name)).collect();
    let [a, b] = lora.as_slice() else { bail!("{} rows", lora.len()) };
    let mut peft = Qwen2::base()?;
    for (name, row) in [("a", a), ("b", b)] {
        peft.add(name, row.config.method())?;
        move_trained(peft.params(name)?, 5)?;
    }
    peft.view_rows(&[Some("a"), Some("b"), None])?;
    peft.combine("sum", &[("a", 0.7), ("b", -0.4)], Combination::Cat)?;
    peft.to_lora("a", "lora", 3)?;
    Ok(())
}
