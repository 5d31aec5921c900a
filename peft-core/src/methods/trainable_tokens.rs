//! Trainable tokens: a few rows of an embedding, trained alone. A method of PEFT's, for tokens that a vocabulary was
//! enlarged by, <https://huggingface.co/docs/peft/package_reference/trainable_tokens>.
//!
//! `E[i] = row` for each chosen token i, and the same in a head that is tied to E.

use crate::error::Result;
use crate::methods::config::{Common, PeftConfig, without_modules_to_save};
use crate::methods::tokens::{Request, TokenRows};
use crate::seam::{Adapter, Method, MethodConfig, Outline, Params, Resolved, Site, SiteKind};
use crate::target::{Adaptable, Layers, Names, Targets};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tch::Tensor;

/// Configuration of trainable tokens; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | rows | `[tokens, dim]` | `<site>.trainable_tokens_delta`; again under a tied head's name | E's, or N(0, 1) |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainableTokensConfig {
    /// The tokens whose rows are trained, in the order of the stored rows.
    pub token_indices: Vec<i64>,
    /// Embeddings; `None` is the word embedding, which is written by its full name.
    pub target_modules: Option<Names>,
    /// Whether the rows start as those of the embedding; if not, they are drawn from N(0, 1).
    pub init_weights: bool,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

impl Default for TrainableTokensConfig {
    fn default() -> Self {
        Self {
            token_indices: Vec::new(),
            target_modules: None,
            init_weights: true,
            common: Common::default(),
        }
    }
}

const NAME: &str = "trainable tokens";
const CAN: Adaptable =
    Adaptable { method: NAME, kinds: &[SiteKind::Embedding, SiteKind::Linear], default: None };

impl PeftConfig for TrainableTokensConfig {
    const TYPE: &'static str = "TRAINABLE_TOKENS";
}

impl MethodConfig for TrainableTokensConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        if self.common.modules_to_save.is_some() {
            self.common.resolve(NAME, outline)?;
        }
        let names = match self.target_modules.take() {
            Some(names) => names,
            None => Names::Pattern(words(outline)?.to_owned()),
        };
        let found = Targets::from(names.clone()).resolve(&CAN, &Layers::default(), &[], outline)?;
        let ask = Request {
            method: NAME,
            field: "token_indices",
            leaf: "trainable_tokens_delta",
            twice: true,
            common: &self.common,
        };
        let mut rows = TokenRows::default();
        for site in &found.sites {
            rows.add(ask, outline, site, &self.token_indices)?;
        }
        self.target_modules = Some(names);
        let drawn = !self.init_weights;
        Ok(self.resolved(|_| TrainableTokensMethod { rows, drawn }))
    }
}

/// Trainable tokens in one model.
#[derive(Debug)]
struct TrainableTokensMethod {
    rows: TokenRows,
    /// Whether the rows start as N(0, 1).
    drawn: bool,
}

impl Method for TrainableTokensMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        self.rows.adapt(site, params, self.drawn)
    }

    fn export(&self, params: &Params) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = params.tensors();
        self.rows.export(&mut tensors)?;
        Ok(tensors)
    }

    fn import(&self, place: &str, mut tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        self.rows.import(place, &mut tensors)?;
        Ok(tensors)
    }

    /// PEFT has no `modules_to_save` here, and trains no head by itself.
    fn amend(&self, _: &Params, file: &mut Map<String, Value>) -> Result<()> {
        without_modules_to_save(file);
        Ok(())
    }
}

/// Full name of the word embedding.
pub(super) fn words(outline: &Outline) -> Result<&str> {
    let name = outline.dims.sizes()?.word_embedding.as_str();
    Ok(name.strip_suffix(".weight").unwrap_or(name))
}
