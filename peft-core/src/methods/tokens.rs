//! Rows of embeddings that are trained alone: what trainable tokens and LoRA's `trainable_token_indices` share.
//!
//! `E[i] = row` for the chosen i; despite PEFT's name for them, `trainable_tokens_delta`, the rows replace those of E. A
//! head that is tied to E follows. Adapters that are active together have tokens of their own each.

use crate::error::{Error, Result};
use crate::methods::config::Common;
use crate::seam::{Adapter, Init, Inner, Outline, PREFIX, Params, Site, SiteKind, Twin, Weights};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// Which rows of which layers are trained; resolved when the adapter is added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TokenRows {
    sites: BTreeMap<String, Chosen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chosen {
    indices: Vec<i64>,
    /// Stored name of the rows.
    key: String,
    /// Where PEFT stores them once more: a tied head that follows.
    again: Option<Again>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Again {
    key: String,
    /// Whether every file has them; else those alone that have the whole embedding as well.
    always: bool,
}

/// What a config says about its rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub method: &'static str,
    /// The field with the indices.
    pub field: &'static str,
    /// Name of the rows at their site.
    pub leaf: &'static str,
    /// Whether every file has them a second time, at a tied head.
    pub twice: bool,
    pub common: &'a Common,
}

impl TokenRows {
    /// The layers whose rows are trained, tied heads included.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.sites.keys().map(String::as_str)
    }

    /// Adds the rows `indices` of layer `site`.
    ///
    /// # Errors
    /// A layer without a row a token, one that is trained whole, and indices that are missing, repeated or outside the
    /// vocabulary.
    pub(super) fn add(
        &mut self,
        ask: Request<'_>,
        outline: &Outline,
        site: &str,
        indices: &[i64],
    ) -> Result<()> {
        let wrong = |message: String| Error::config(ask.method, ask.field, format!("`{site}`: {message}"));
        let found = outline.sites.iter().find(|s| s.name == site && !s.shape.is_empty());
        let Some((kind, &[vocab, _])) = found.map(|s| (s.kind, s.shape.as_slice())) else {
            return Err(wrong("is not a layer with one row a token".into()));
        };
        let rows = kind == SiteKind::Embedding || outline.dims.is_head(site);
        if !rows {
            return Err(wrong(format!("it is {kind}, not {}", SiteKind::Embedding)));
        }
        if ask.common.overlay("", &format!("{site}.weight")).is_some() {
            return Err(wrong("it is trained whole already, by modules_to_save".into()));
        }
        let distinct: BTreeSet<i64> = indices.iter().copied().collect();
        if indices.is_empty() || distinct.len() != indices.len() {
            return Err(wrong(format!("needs token indices, each once, and has {indices:?}")));
        }
        if let Some(i) = distinct.iter().find(|i| !(0..vocab).contains(*i)) {
            let message = format!(
                "token {i} is outside the vocabulary of {vocab}; for new tokens, resize the base first"
            );
            return Err(wrong(message));
        }
        let key = |site: &str| format!("{PREFIX}{site}.{}", ask.leaf);
        let weight = format!("{site}.weight");
        let tied = outline.sites.iter().filter(|s| s.tied.as_ref() == Some(&weight));
        let tied: Vec<&str> = tied.map(|s| s.name.as_str()).collect();
        let mut known = tied.iter().copied().chain([site]).filter_map(|s| self.sites.get(s));
        if known.any(|c| c.indices != indices) {
            return Err(wrong("a layer whose weight is tied to it has other indices".into()));
        }
        if self.sites.contains_key(site) {
            return Ok(()); // it follows
        }
        let chosen = Chosen { indices: indices.to_vec(), key: key(site), again: None };
        for name in tied {
            let again = Again { key: key(name), always: ask.twice };
            self.sites.insert(name.to_owned(), Chosen { again: Some(again), ..chosen.clone() });
        }
        self.sites.insert(site.to_owned(), chosen);
        Ok(())
    }

    /// The adapter at `site`, if its rows are trained. They start as the base's, or as N(0, 1).
    pub(super) fn adapt(
        &self,
        site: &Site<'_>,
        params: &Params,
        drawn: bool,
    ) -> Result<Option<Box<dyn Adapter>>> {
        let Some(Chosen { indices, key, .. }) = self.sites.get(site.name) else { return Ok(None) };
        let Some((vocab, dim)) = site.embedding().or(site.linear()) else { return Ok(None) };
        let device = params.device();
        let count = i64::try_from(indices.len()).unwrap_or(i64::MAX);
        let index = params.derived(&format!("{key}.index"), || Ok(Tensor::f_from_slice(indices)?))?;
        let rows = params.get_or_else(key, &[count, dim], || match drawn {
            true => Init::Normal { std: 1.0 }.tensor(&[count, dim], device),
            false => Ok(site.weight()?.f_index_select(0, &index)?.f_to_kind(Kind::Float)?),
        })?;
        let slots = || -> Result<Tensor> {
            let int = (Kind::Int64, device);
            let none = Tensor::f_full([vocab], -1, int)?;
            Ok(none.f_index_copy(0, &index, &Tensor::f_arange(count, int)?)?)
        };
        let slots = site.embedding().map(|_| params.derived(&format!("{key}.slots"), slots)).transpose()?;
        Ok(Some(Box::new(Rows { tokens: indices.clone(), rows, index, slots })))
    }

    /// PEFT stores the rows of a tied head again.
    fn twins(&self, there: impl Fn(&Again) -> bool) -> impl Iterator<Item = Twin> {
        let twice = self.sites.values().filter_map(|c| Some((&c.key, c.again.as_ref()?)));
        twice.filter(move |(_, again)| there(again)).map(|(key, again)| Twin::new(key, &again.key))
    }

    /// The file's tensors.
    pub(super) fn export(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        self.twins(|again| again.always).try_for_each(|twin| twin.export(tensors))
    }

    /// The inverse of [`TokenRows::export`].
    ///
    /// # Errors
    /// Rows of a tied head that are missing, or differ from the embedding's.
    pub(super) fn import(&self, place: &str, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        let names: BTreeSet<String> = tensors.keys().cloned().collect();
        let there = |again: &Again| again.always || names.contains(&again.key);
        self.twins(there).try_for_each(|twin| twin.import(place, tensors))
    }
}

/// Replaced rows of an embedding, or of the head.
#[derive(Debug)]
struct Rows {
    /// The tokens.
    tokens: Vec<i64>,
    /// `[tokens, dim]`
    pub rows: Tensor,
    /// The tokens, `[tokens]`.
    pub index: Tensor,
    /// For an embedding: each token's place in `rows`, or −1; `[vocab]`.
    slots: Option<Tensor>,
}

impl Adapter for Rows {
    fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    fn reweight(&self, w: Weights) -> Result<Weights> {
        let rows = self.rows.f_to_kind(w.weight.kind())?;
        Ok(Weights { weight: w.weight.f_index_copy(0, &self.index, &rows)?, ..w })
    }

    /// The weight is never copied: what the chosen rows give is put over the base's output.
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let mut y = inner.forward(x)?;
        let rows = self.rows.f_to_kind(y.kind())?;
        match &self.slots {
            Some(slots) => {
                let slot = slots.f_index_select(0, &x.f_reshape([-1])?)?.f_view(x.size().as_slice())?;
                let own = Tensor::f_embedding(&rows, &slot.f_clamp_min(0)?, -1, false, false)?;
                Ok(own.f_where_self(&slot.f_ge(0)?.f_unsqueeze(-1)?, &y)?)
            }
            None => Ok(y.f_index_copy_(-1, &self.index, &x.f_linear(&rows, None::<Tensor>)?)?),
        }
    }
}
