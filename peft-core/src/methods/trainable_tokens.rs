//! Trainable tokens: a few rows of an embedding, trained alone. A method of PEFT's, for tokens that a vocabulary was
//! enlarged by, <https://huggingface.co/docs/peft/package_reference/trainable_tokens>.
//!
//! `E[i] = row` for each chosen token i, and the same in a head that is tied to E.

use crate::error::Result;
use crate::methods::config::{Common, PeftConfig, to_json};
use crate::methods::tokens::{Request, TokenRows};
use crate::seam::layer::Adapter;
use crate::seam::method::{FileForm, Method};
use crate::seam::params::Params;
use crate::seam::site::{Outline, Site, SiteKind};
use crate::target::{LayerFilter, Names, Selection};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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
    /// The tokens, in the order of the stored rows.
    pub token_indices: Vec<i64>,
    /// Embeddings; `None` is the word embedding, which is written by its full name.
    pub target_modules: Option<Names>,
    /// `false` draws the rows.
    pub init_weights: bool,
    #[serde(flatten)]
    pub common: Common,
    /// Filled when the adapter is added.
    #[serde(skip)]
    pub rows: TokenRows,
}

impl Default for TrainableTokensConfig {
    fn default() -> Self {
        Self {
            token_indices: Vec::new(),
            target_modules: None,
            init_weights: true,
            common: Common::default(),
            rows: TokenRows::default(),
        }
    }
}

const NAME: &str = "trainable tokens";

impl PeftConfig for TrainableTokensConfig {
    const TYPE: &'static str = "TRAINABLE_TOKENS";
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Method for TrainableTokensConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        if self.common.modules_to_save.is_some() {
            self.common.prepare(NAME, outline)?;
        }
        let names = match self.target_modules.take() {
            Some(names) => names,
            None => Names::Pattern(words(outline)?.to_owned()),
        };
        let found = Selection {
            method: NAME,
            supported: &[SiteKind::Embedding, SiteKind::Linear],
            target_modules: Some(&names),
            default: None,
            exclude_modules: None,
            layers: LayerFilter::default(),
            modules_to_save: &[],
        }
        .resolve(outline)?;
        let ask = Request {
            method: NAME,
            field: "token_indices",
            leaf: "trainable_tokens_delta",
            twice: true,
            common: &self.common,
        };
        self.rows = TokenRows::default();
        for site in &found.sites {
            self.rows.add(ask, outline, site, &self.token_indices)?;
        }
        self.target_modules = Some(names);
        Ok(())
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        self.rows.adapt(NAME, site, params, !self.init_weights)
    }

    fn tokens(&self, site: &str) -> &[i64] {
        self.rows.tokens(site)
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
    fn config(&self, _: &Params) -> Result<Option<Value>> {
        let mut json = to_json(self)?;
        if let (None, Some(fields)) = (&self.common.modules_to_save, json.as_object_mut()) {
            fields.shift_remove("modules_to_save");
        }
        Ok(Some(json))
    }

    fn file(&self) -> Option<&dyn FileForm> {
        Some(self)
    }
}

/// Full name of the word embedding.
pub(super) fn words(outline: &Outline) -> Result<&str> {
    let name = outline.dims.sizes()?.word_embedding.as_str();
    Ok(name.strip_suffix(".weight").unwrap_or(name))
}
