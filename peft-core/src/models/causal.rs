//! What all causal models share: entering a batch (prompts, positions, masks, the cache) and leaving it (logits), the
//! head, and what is written to `config.json`.

use crate::error::{Error, Result};
use crate::io::patched;
use crate::models::hub_model::Family;
use crate::run::Scope;
use crate::seam::{Batch, Documents, Input, Layer, Pass, Prompt, Wanted, causal_mask};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// Name of the head.
pub(super) const HEAD: &str = "lm_head";

/// The head of a model with `vocab` words; `tied` is the full name of the word embedding's weight, where it is the head's.
pub(super) fn head(s: &Scope<'_>, tied: Option<&str>, hidden: i64, vocab: i64) -> Result<Layer> {
    match tied {
        Some(words) => s.tied_linear(HEAD, words, hidden, vocab),
        None => s.linear(HEAD, hidden, vocab, false),
    }
}

/// The file that was read, as it is for the model now.
pub(super) fn written(json: &Value, family: &Family, tied: bool, vocab: i64) -> Value {
    let class = ("architectures", vec![family.class].into());
    patched(json, [class, ("tie_word_embeddings", tied.into()), ("vocab_size", vocab.into())])
}

/// A batch on its way through a causal model.
#[derive(Debug)]
pub(super) struct Stream {
    /// Word embeddings, prompts included: `[batch, t, hidden]`.
    pub x: Tensor,
    /// Position of each token, `[batch or 1, t]`.
    pub positions: Tensor,
    masks: Masks,
    virtual_tokens: i64,
    /// One more than the last position there can be.
    end: i64,
}

/// What each window sees: an additive mask, or everything before.
#[derive(Debug)]
pub(super) struct Masks(BTreeMap<Option<i64>, (Option<Tensor>, bool)>);

impl Masks {
    /// The call's state for a layer with one of the windows.
    pub fn pass<'a>(&'a self, window: Option<i64>, pass: Pass<'a>) -> Result<Pass<'a>> {
        let (mask, causal) = self
            .0
            .get(&window)
            .ok_or_else(|| Error::Input(format!("the batch was not prepared for a window of {window:?}")))?;
        Ok(Pass { mask: mask.as_ref(), causal: *causal, ..pass })
    }
}

impl Stream {
    /// Embeds the batch. A token's position is the number of tokens before it, padding on the left not counted;
    /// `windows` are those of the layers: how many tokens one sees, itself included.
    pub fn enter(
        batch: &Batch,
        words: &Layer,
        prompts: &[Box<dyn Prompt>],
        windows: impl IntoIterator<Item = Option<i64>>,
        pass: Pass<'_>,
    ) -> Result<Self> {
        let (cached, cached_virtual) = pass.cache.map_or((0, 0), |c| (c.len(), c.virtual_tokens()));
        batch.check_mask(cached.saturating_sub(cached_virtual))?;
        batch.check_untyped()?;
        if batch.documents.is_some() {
            check_packed(prompts, pass)?;
        }
        let embeds = words.forward(batch.ids()?, pass)?;
        let mask = batch.additive_mask(embeds.kind())?;
        let input = Input { embeds, mask, position: 0, virtual_tokens: 0 };
        let Input { embeds: x, mask: padding, position, virtual_tokens } =
            prompts.iter().try_fold(input, |input, p| p.rewrite(input, pass))?;

        let t = x.size3()?.1;
        let keys = cached.saturating_add(t);
        let positions = positions(batch, cached, t, virtual_tokens)?.f_add_scalar(position)?;
        let longest = batch.documents.as_ref().map_or(keys, Documents::longest);
        let distinct: BTreeSet<Option<i64>> = windows.into_iter().collect();
        let masks = distinct.into_iter().map(|window| {
            let mask = match (&padding, window.filter(|w| *w < keys)) {
                (padding, None) if t == 1 => (padding.as_ref().map(Tensor::shallow_clone), false),
                (None, None) if cached == 0 => (None, true),
                (padding, window) => {
                    let causal = causal_mask(t, keys, window, (x.kind(), x.device()))?;
                    let mask =
                        padding.as_ref().map_or_else(|| Ok(causal.shallow_clone()), |p| causal.f_minimum(p));
                    (Some(mask?), false)
                }
            };
            Ok((window, mask))
        });
        let masks = Masks(masks.collect::<Result<_>>()?);
        Ok(Self { x, positions, masks, virtual_tokens, end: longest.saturating_add(position) })
    }

    /// What each window sees.
    pub fn masks(&self) -> Masks {
        let own =
            |(mask, causal): &(Option<Tensor>, bool)| (mask.as_ref().map(Tensor::shallow_clone), *causal);
        Masks(self.masks.0.iter().map(|(window, mask)| (*window, own(mask))).collect())
    }

    /// As [`Masks::pass`].
    pub fn pass<'a>(&'a self, window: Option<i64>, pass: Pass<'a>) -> Result<Pass<'a>> {
        self.masks.pass(window, pass)
    }

    /// Logits of the last layer's normed output `x`, of the last position alone where the call asks for that.
    pub fn leave(&self, x: &Tensor, head: &Layer, pass: Pass<'_>) -> Result<Tensor> {
        let t = x.size3()?.1;
        if let Some(cache) = pass.cache {
            cache.advance(t, self.virtual_tokens);
        }
        match pass.wanted {
            Wanted::Last => head.forward(&x.f_narrow(1, t.saturating_sub(1), 1)?, pass),
            Wanted::All => head.forward(x, pass),
        }
    }

    /// Checks that the model has as many positions.
    pub fn check_positions(&self, most: i64) -> Result<()> {
        if self.end <= most {
            return Ok(());
        }
        Err(Error::Input(format!("{} tokens do not fit the model's {most} positions", self.end)))
    }
}

/// That texts in one row see nothing but themselves.
fn check_packed(prompts: &[Box<dyn Prompt>], pass: Pass<'_>) -> Result<()> {
    if pass.cache.is_some() {
        return Err(Error::Input(
            "rows that are several texts each (packed), with a cache of what came before them".into(),
        ));
    }
    if !prompts.is_empty() {
        let message = "rows that are several texts each (packed), with an adapter that puts virtual tokens before a row: each \
                       text needs its own; train it on rows of one text";
        return Err(Error::Input(message.into()));
    }
    Ok(())
}

/// `[batch or 1, t]`: virtual tokens from 0 on, then the batch's tokens, those of a packed text from 0 on.
fn positions(batch: &Batch, cached: i64, t: i64, virtual_tokens: i64) -> Result<Tensor> {
    if let Some(documents) = &batch.documents {
        return documents.positions(t, batch.ids()?.device());
    }
    let index = (Kind::Int64, batch.ids()?.device());
    let all = Tensor::f_arange_start(cached, cached.saturating_add(t), index)?.f_unsqueeze(0)?;
    let Some(mask) = &batch.mask else { return Ok(all) };
    let pads = mask.f_cumsum(1, Kind::Int64)?.f_eq(0)?.f_sum_dim_intlist(1, true, Kind::Int64)?;
    let words = t.saturating_sub(virtual_tokens);
    let tokens = all.f_narrow(1, virtual_tokens, words)?.f_sub(&pads)?.f_clamp_min(virtual_tokens)?;
    let rows = tokens.size2()?.0;
    let prompt = all.f_narrow(1, 0, virtual_tokens)?.f_expand([rows, -1], false)?;
    Ok(Tensor::f_cat(&[&prompt, &tokens], 1)?)
}
