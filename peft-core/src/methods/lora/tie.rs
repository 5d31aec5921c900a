//! `ensure_weight_tying`: a head that is tied to the word embedding stays tied to what is trained there, as in PEFT.
//!
//! With E the embedding and the head's weight, a copy of E (`modules_to_save`) is the copy of both, and a change
//! `ΔE = s · (B A)ᵀ` (`target_modules`) is the head's too, as a linear layer's with `A' = Bᵀ` and `B' = Aᵀ`. PEFT
//! stores what the two share a second time, under the head's name.

use crate::error::{Error, Result};
use crate::methods::config::Common;
use crate::methods::lora::names::BASE;
use crate::methods::lora::{Lora, LoraConfig};
use crate::methods::ranks::SiteRank;
use crate::methods::trainable_tokens::words;
use crate::seam::{Outline, PREFIX, Params, Site, Twin};
use crate::target::{Names, Targets, no_target, within};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tch::Tensor;

/// The tied pair, and what is trained of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tie {
    words: String,
    head: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A copy of the embedding.
    Copy,
    /// A change of it.
    Change,
}

/// The last parts of names by which PEFT knows an embedding and a head.
const KNOWN: &[&str] = &["embed_tokens", "lm_head"];

impl Tie {
    /// What is tied, where that is asked for, of what a configuration names. As in PEFT, it names the embedding alone
    /// afterwards.
    ///
    /// # Errors
    /// [`Error::NoTarget`] for a model whose head is not tied.
    pub(in crate::methods) fn of(
        method: &'static str,
        common: &mut Common,
        targets: &mut Targets,
        outline: &Outline,
    ) -> Result<Option<Self>> {
        let words = words(outline)?.to_owned();
        let weight = format!("{words}.weight");
        let Some(head) = outline.sites.iter().find(|s| s.tied.as_ref() == Some(&weight)) else {
            return Err(no_target(method, "ensure_weight_tying", "true", []));
        };
        let (words, head) = (words.clone(), head.name.clone());
        let only_words = |names: &mut Vec<String>| {
            if !names.contains(&words) {
                names.push(words.clone());
            }
            if let Some(at) = names.iter().position(|name| within(&head, name)) {
                names.remove(at);
            }
        };
        let kind = match (&mut common.modules_to_save, &mut targets.target_modules) {
            (Some(saved), _) if saved.iter().any(|name| Self::knows(name)) => {
                only_words(saved);
                Kind::Copy
            }
            (_, Some(Names::List(targets))) if targets.iter().any(|name| Self::knows(name)) => {
                only_words(targets);
                Kind::Change
            }
            _ => return Ok(None),
        };
        Ok(Some(Tie { words, head, kind }))
    }

    /// Whether it is a name by which PEFT knows that there is something to tie.
    pub(crate) fn knows(name: &str) -> bool {
        KNOWN.contains(&name.rsplit('.').next().unwrap_or_default())
    }

    /// The head, where a change of the embedding is its, too.
    pub(super) fn changed_head(&self) -> Option<&str> {
        (self.kind == Kind::Change).then_some(self.head.as_str())
    }

    /// The head's parameter is the embedding's, where a copy is the copy of both.
    pub(in crate::methods) fn copied<'s>(&'s self, param: &'s str) -> Option<String> {
        let head = self.kind == Kind::Copy && param.strip_suffix(".weight") == Some(&self.head);
        head.then(|| format!("{}.weight", self.words))
    }

    /// Whose frozen weight the head's is.
    pub(super) fn base(&self, site: &str) -> Option<&str> {
        (self.changed_head() == Some(site)).then_some(self.words.as_str())
    }

    /// The head's LoRA: the embedding's factors, turned round.
    pub(super) fn lora(
        &self,
        config: &LoraConfig,
        rank: SiteRank,
        site: &Site<'_>,
        params: &Params,
    ) -> Result<Option<Lora>> {
        if self.changed_head() != Some(site.name) {
            return Ok(None);
        }
        let factor = |leaf: &str| {
            let name = format!("{PREFIX}{}.{leaf}", self.words);
            let missing =
                || Error::Input(format!("{}: no `{name}` for the head that is tied to it", params.label()));
            params.find(&name).ok_or_else(missing)
        };
        let (a, b) = (factor("lora_embedding_B")?.f_tr()?, factor("lora_embedding_A")?.f_tr()?);
        let (scaling, dropout) = (rank.scaling, config.lora_dropout);
        Ok(Some(Lora { a, b, bias: None, start: None, scaling, dropout }))
    }

    /// What the file has twice. The frozen weights are there where PEFT saves them, and then both.
    fn twins(&self, tensors: &BTreeMap<String, Tensor>) -> Vec<Twin> {
        let key = |site: &str, leaf: &str| format!("{PREFIX}{site}{leaf}");
        let twin = |a: &str, b: &str| Twin::new(key(&self.words, a), key(&self.head, b));
        let mut twins = match self.kind {
            Kind::Copy => vec![twin(".weight", ".weight")],
            Kind::Change => vec![
                Twin { turned: true, ..twin(".lora_embedding_B", ".lora_A.weight") },
                Twin { turned: true, ..twin(".lora_embedding_A", ".lora_B.weight") },
                twin(BASE, BASE),
            ],
        };
        twins.retain(|t| !t.first.ends_with(BASE) || tensors.contains_key(&t.first));
        twins
    }

    /// Names the head in a file's configuration where PEFT, reading it, would else not know that there is something to
    /// tie: it asks for names that it knows, and GPT-2's embedding has none of them.
    pub(in crate::methods) fn name_head(&self, file: &mut Map<String, Value>) {
        let field = match self.kind {
            Kind::Copy => "modules_to_save",
            Kind::Change => "target_modules",
        };
        if let (false, Some(Value::Array(names))) = (Self::knows(&self.words), file.get_mut(field)) {
            names.push(self.head.as_str().into());
        }
    }

    /// Adds what PEFT stores twice.
    pub(in crate::methods) fn export(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        self.twins(tensors).iter().try_for_each(|twin| twin.export(tensors))
    }

    /// The inverse of [`Tie::export`].
    pub(in crate::methods) fn import(
        &self,
        place: &str,
        tensors: &mut BTreeMap<String, Tensor>,
    ) -> Result<()> {
        self.twins(tensors).iter().try_for_each(|twin| twin.import(place, tensors))
    }
}
