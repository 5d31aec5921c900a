//! `prompt` and `resolve`: what a method learns about the model, and does to its input.

use crate::{TINY, batch, get, logits, tiny};
use anyhow::{Context, Result, ensure};
use peft_core::seam::{Dims, Init, Input, Method, MethodConfig, Outline, Prompt, Resolved, SiteKind};
use peft_core::{Error, Params, Pass, Peft};
use std::collections::BTreeMap;
use tch::Tensor;
use tests::{assert_close, refused, serial};

/// Adds a trained vector to every word; checks what it is told of the model.
#[derive(Debug)]
struct Words {
    linear: usize,
}

impl MethodConfig for Words {
    fn resolve(self: Box<Self>, outline: &Outline) -> peft_core::Result<Resolved> {
        let found = outline.sites.iter().filter(|s| s.kind == SiteKind::Linear).count();
        if found != self.linear {
            return Err(Error::Input(format!("words: {found} linear layers")));
        }
        Ok(WordsMethod.into())
    }
}

#[derive(Debug)]
struct WordsMethod;

impl Method for WordsMethod {
    fn name(&self) -> &'static str {
        "words"
    }

    fn prompt(
        &self,
        dims: &Dims,
        _: Option<&Tensor>,
        params: &Params,
    ) -> peft_core::Result<Option<Box<dyn Prompt>>> {
        Ok(Some(Box::new(Shift(params.get_or_init(
            "v",
            &[dims.sizes()?.hidden],
            Init::Normal { std: 1.0 },
        )?))))
    }
}

#[derive(Debug)]
struct Shift(Tensor);

impl Prompt for Shift {
    fn rewrite(&self, input: Input, _: Pass<'_>) -> peft_core::Result<Input> {
        Ok(Input { embeds: input.embeds.f_add(&self.0)?, ..input })
    }
}

/// A vector added to every word is a vector added to every row of the embedding.
#[test]
fn a_prompt_rewrites_the_input() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    peft.add("words", Words { linear: 9 })?;
    let mut tensors: BTreeMap<String, Tensor> = peft.base().tensors();
    let words = tensors.remove("embed.weight").context("embed.weight")?;
    tensors.insert("embed.weight".into(), words + get(peft.params("words")?, "v"));
    let base = Params::from_tensors("shifted", tch::Device::Cpu, tensors)?;
    let expected = logits(&Peft::new(base, TINY)?, &[], &batch)?;
    assert_close("shifted", &logits(&peft, &["words"], &batch)?, &expected, 1e-5)
}

#[test]
fn resolve_may_refuse() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    refused("adding", peft.add("words", Words { linear: 8 }), &["words: 9 linear layers"])?;
    ensure!(peft.names().is_empty(), "it was added all the same");
    Ok(())
}

/// A method that finds nothing to do is an error when it is added, not a silent loss.
#[test]
fn a_method_that_does_nothing_is_refused() -> Result<()> {
    let _serial = serial();
    #[derive(Debug)]
    struct Nothing;
    impl Method for Nothing {
        fn name(&self) -> &'static str {
            "nothing at all"
        }
    }
    let mut peft = tiny()?;
    let error = refused("adding", peft.add("x", Nothing), &["nothing at all", "adapts nothing"])?;
    ensure!(matches!(error, Error::Idle { .. }), "{error:?}");
    Ok(())
}
