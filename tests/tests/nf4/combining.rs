//! Combinations and conversions over weights in 4 bits, where an adapter has a whole copy of one.

use crate::{DOUBLE, TOL, dense};
use anyhow::{Context, Result, ensure};
use peft_core::Peft;
use peft_core::combine::Combination;
use peft_core::methods::{Common, LoraConfig};
use tests::serial;
use tests::subject::{Bert, Gpt2, Llama};
use tests::subject::{Subject, logits, move_away};
use tests::{assert_close, same_bits};

/// An adapter of `target` that trains the linear layer `whole` as well, and a copy of it that has not moved in `still`.
fn adapters<M: Subject>(target: &str, whole: &str) -> Result<Peft> {
    let mut peft = M::base()?.quantised(&DOUBLE)?;
    ensure!(peft.base().nf4s().keys().any(|name| name.contains(whole)), "{whole} is not in 4 bits");
    let common = Common { modules_to_save: Some(vec![whole.into()]), ..M::common() };
    let targets = [target].into();
    let lora = LoraConfig { r: 4, targets, common, ..LoraConfig::default() };
    for name in ["moved", "still"] {
        peft.add(name, lora.clone())?;
        let params = peft.params(name)?;
        let before = params.tensors().into_iter().map(|(name, t)| (name, t.detach().copy()));
        let before: Vec<_> = before.filter(|(key, _)| name == "still" && key.contains(whole)).collect();
        move_away(params, 5)?;
        before.iter().try_for_each(|(name, t)| params.assign(name, t))?;
    }
    Ok(peft)
}

fn survives<M: Subject>(target: &str, whole: &str) -> Result<()> {
    let mut peft = adapters::<M>(target, whole)?;
    let mut over_dense = dense(&peft)?;
    for name in ["moved", "still"] {
        let expected = logits(&peft, &[name])?;
        peft.combine("combined", &[(name, 1.0)], Combination::Cat)?;
        peft.to_lora(name, "converted", 4)?;
        for new in ["combined", "converted"] {
            let what = format!("{} {name} {new}", M::NAME);
            assert_close(&what, &logits(&peft, &[new])?, &expected, TOL)?;
            for (key, t) in peft.params(name)?.tensors().iter().filter(|(key, _)| key.contains(whole)) {
                let tensors = peft.params(new)?.tensors();
                let copy = tensors.get(key).with_context(|| format!("{what}: no {key}"))?;
                ensure!(same_bits(copy, t), "{what}: {key} is another one");
            }
            let dir = tempfile::tempdir()?;
            peft.save(new, dir.path())?;
            over_dense.load(new, dir.path())?;
            assert_close(&what, &logits(&over_dense, &[new])?, &expected, TOL)?;
            over_dense.delete(new)?;
            peft.delete(new)?;
        }
    }
    Ok(())
}

#[test]
fn copies_of_4_bit_weights() -> Result<()> {
    let _serial = serial();
    survives::<Llama>("q_proj", "o_proj")?;
    survives::<Bert>("query", "pooler.dense")?;
    // Stored as [in, out].
    survives::<Gpt2>("c_attn", "c_fc")
}
