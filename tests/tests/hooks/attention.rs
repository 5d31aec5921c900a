//! `attend`: LLaMA-Adapter's zero-init attention (Zhang et al. 2023), against the whole model computed by hand.

use crate::{TINY, batch, classes, logits, tiny};
use anyhow::Result;
use peft_core::methods::{HiddenPrefixConfig, LoraConfig};
use peft_core::seam::{Attended, AttentionAdapter, AttentionInner, Heads, Init, Method, Place, Site};
use peft_core::train::cross_entropy;
use peft_core::{Error, Model, Params, Pass, Peft};
use std::collections::BTreeMap;
use tch::Tensor;
use tests::reference::{self, Formula, attention};
use tests::subject::{self, Subject};
use tests::subject::{Bert, Tiny};
use tests::{assert_bits, assert_close, refused, serial};

/// `y + g · softmax(q Kᵀ/√d) V`, with K and V the model's own projections of a trained prompt.
#[derive(Debug)]
struct ZeroInit {
    tokens: i64,
}

impl Method for ZeroInit {
    fn name(&self) -> &'static str {
        "zero-init attention"
    }

    fn attend(
        &self,
        site: &Site<'_>,
        params: &Params,
    ) -> peft_core::Result<Option<Box<dyn AttentionAdapter>>> {
        assert!(matches!(site.place, Place::Attention), "attend is for attention cores");
        let prompt = site.param(
            params,
            "prompt",
            &[self.tokens, site.dims.sizes()?.hidden],
            Init::Normal { std: 1.0 },
        )?;
        let gate = site.param(params, "gate", &[1], Init::Zeros)?;
        Ok(Some(Box::new(Branch { prompt, gate })))
    }
}

#[derive(Debug)]
struct Branch {
    prompt: Tensor,
    gate: Tensor,
}

impl AttentionAdapter for Branch {
    fn forward(&self, heads: Heads, inner: &AttentionInner<'_>) -> peft_core::Result<Attended> {
        let (k, v) = inner.project(&self.prompt.f_unsqueeze(0)?)?;
        let own = attention(&heads.q, &k, &v);
        inner.forward(heads)?.plus(&own.f_mul(&self.gate)?)
    }
}

/// The same, in the model written out by hand.
struct ByHand(BTreeMap<String, Tensor>);

impl Formula for ByHand {
    fn attention(&self, layer: i64, heads: [Tensor; 3], project: &dyn Fn(&Tensor) -> [Tensor; 3]) -> Tensor {
        let own = |leaf: &str| &self.0[&format!("base_model.model.layers.{layer}.attn.core.{leaf}")];
        let [q, k, v] = heads;
        let [_, prompt_k, prompt_v] = project(&own("prompt").unsqueeze(0));
        attention(&q, &k, &v) + attention(&q, &prompt_k, &prompt_v) * own("gate")
    }
}

fn by_hand(peft: &Peft, adapter: &Params, ids: &Tensor) -> Tensor {
    reference::tiny(&peft.base().tensors(), &TINY, ids, &ByHand(adapter.tensors())).detach()
}

#[test]
fn a_gate_of_zero_is_the_identity_and_learns() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    peft.add("zero", ZeroInit { tokens: 5 })?;
    assert_bits("gate 0", &logits(&peft, &["zero"], &batch)?, &logits(&peft, &[], &batch)?)?;

    let y = peft.view(&["zero"])?.forward(&batch, Pass::train())?;
    cross_entropy(&y, &classes())?.backward();
    for (name, p) in peft.trainable(&["zero"])? {
        let moves = f64::try_from(p.grad().abs().max())? > 0.0;
        assert_eq!(moves, name.ends_with("gate"), "gradient of {name}: the gate opens first");
    }
    Ok(())
}

#[test]
fn an_open_gate_adds_the_branch() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    peft.add("zero", ZeroInit { tokens: 5 })?;
    let params = peft.params("zero")?;
    assert_close(
        "by hand, gate 0",
        &by_hand(&peft, params, batch.ids()?),
        &logits(&peft, &[], &batch)?,
        1e-5,
    )?;
    for (i, gate) in [(0, 0.7f32), (1, -1.9)] {
        let name = format!("base_model.model.layers.{i}.attn.core.gate");
        params.assign(&name, &Tensor::from_slice(&[gate]))?;
    }
    let found = logits(&peft, &["zero"], &batch)?;
    assert_close("by hand", &found, &by_hand(&peft, params, batch.ids()?), 1e-5)?;
    let moved = tests::relative_error(&found, &logits(&peft, &[], &batch)?)?;
    assert!(moved > 1e-2, "the branch moves the logits by {moved:.1e} alone");
    Ok(())
}

/// `project` is the adapted projection: what a LoRA does to keys and values, it does to the prompt's as well.
#[test]
fn the_branch_sees_the_adapters_of_the_projections() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    let targets = ["in_proj"].into();
    peft.add("lora", LoraConfig { r: 2, lora_alpha: 6.0, targets, ..LoraConfig::default() })?;
    peft.add("zero", ZeroInit { tokens: 5 })?;
    crate::shake(peft.params("lora")?)?;
    crate::shake(peft.params("zero")?)?;
    let mut over_merged = peft.merged(&["lora"])?;
    over_merged.add_with("zero", ZeroInit { tokens: 5 }, peft.params("zero")?.tensors())?;
    let expected = by_hand(&over_merged, peft.params("zero")?, batch.ids()?);
    for order in [["lora", "zero"], ["zero", "lora"]] {
        assert_close("both", &logits(&peft, &order, &batch)?, &expected, 1e-5)?;
    }
    Ok(())
}

/// Puts the keys and values of trained hidden states before the words' own.
#[derive(Debug)]
struct Prepend {
    /// Once for every row of the batch, or once for all.
    repeat: bool,
}

impl Method for Prepend {
    fn name(&self) -> &'static str {
        "prepend"
    }

    fn attend(
        &self,
        site: &Site<'_>,
        params: &Params,
    ) -> peft_core::Result<Option<Box<dyn AttentionAdapter>>> {
        let (block, _) = site.name.rsplit_once('.').unwrap_or_default();
        let name = format!("base_model.model.{block}.prefix");
        let states = params.get_or_init(&name, &[4, site.dims.sizes()?.hidden], Init::Normal { std: 1.0 })?;
        Ok(Some(Box::new(States { states, repeat: self.repeat })))
    }
}

#[derive(Debug)]
struct States {
    states: Tensor,
    repeat: bool,
}

impl AttentionAdapter for States {
    fn forward(&self, heads: Heads, inner: &AttentionInner<'_>) -> peft_core::Result<Attended> {
        let rows = if self.repeat { heads.q.size4()?.0 } else { 1 };
        let (k, v) = inner.project(&self.states.f_unsqueeze(0)?.f_repeat([rows, 1, 1])?)?;
        inner.forward(heads.prepend(&k, &v)?)
    }
}

/// `attn([P; x])[n:]` is attention with the projected P before the words: two ways through the seam, one number.
fn prepend<M: Subject>(repeat: bool) -> Result<()> {
    let mut peft = M::base()?;
    peft.add("core", Prepend { repeat })?;
    let config = HiddenPrefixConfig { num_virtual_tokens: 4, ..HiddenPrefixConfig::default() };
    peft.add_with("block", config, peft.params("core")?.tensors())?;
    assert_close(M::NAME, &subject::logits(&peft, &["core"])?, &subject::logits(&peft, &["block"])?, 1e-5)
}

#[test]
fn projected_states_are_a_hidden_prefix() -> Result<()> {
    let _serial = serial();
    prepend::<Tiny>(true)?;
    prepend::<Bert>(true)
}

/// States that all rows of the batch share are projected once.
#[test]
fn shared_states_are_projected_once() -> Result<()> {
    let _serial = serial();
    prepend::<Tiny>(false)?;
    prepend::<Bert>(false)
}

#[test]
fn attention_adapters_do_not_merge() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    peft.add("zero", ZeroInit { tokens: 5 })?;
    let error = refused("merging", peft.merged(&["zero"]), &["zero-init attention", "`layers.0.attn.core`"])?;
    assert!(matches!(error, Error::NotMergeable { .. }), "{error:?}");
    Ok(())
}
