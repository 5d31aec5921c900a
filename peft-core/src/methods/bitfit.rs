//! BitFit: the model's biases are trained and nothing else. Ben Zaken et al. 2021, <https://arxiv.org/abs/2106.10199>,
//! section 3.
//!
//! PEFT has no file form for it; this one is our own. The trained biases are copies that stand for the base's.

use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig};
use crate::seam::method::{FileForm, Method, Overlay};
use crate::seam::site::{Outline, PREFIX};
use crate::target::Names;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Configuration of BitFit. Each trained bias `p` of the model is stored as `base_model.model.p`, in the base's dtype.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BitFitConfig {
    /// Modules (linear layers and norms) whose biases are trained, by PEFT's rules; `None` for all. The paper's smaller
    /// variant has those of the query and of the feed-forward's first layer.
    pub target_modules: Option<Names>,
    pub exclude_modules: Option<Names>,
    #[serde(flatten)]
    pub common: Common,
    /// The biases to train; filled when the adapter is added.
    #[serde(skip)]
    pub params: BTreeSet<String>,
}

const NAME: &str = "BitFit";

impl PeftConfig for BitFitConfig {
    const TYPE: &'static str = "BITFIT";
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Method for BitFitConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        self.common.prepare(NAME, outline)?;
        let modules = outline.params.iter().filter_map(|p| owner(p));
        let mut chosen: BTreeSet<String> = match &self.target_modules {
            Some(names) => names.hits(NAME, "target_modules", modules.clone())?,
            None => modules.clone().map(str::to_owned).collect(),
        };
        if let Some(names) = &self.exclude_modules {
            let excluded = names.hits(NAME, "exclude_modules", modules)?;
            chosen.retain(|m| !excluded.contains(m));
        }
        let ours = |p: &&String| {
            owner(p).is_some_and(|m| chosen.contains(m)) && self.common.overlay(PREFIX, p).is_none()
        };
        self.params = outline.params.iter().filter(ours).cloned().collect();
        if self.params.is_empty() {
            let message = "leaves no bias to train in this model";
            return Err(Error::config(NAME, "target_modules", message));
        }
        Ok(())
    }

    fn overlay(&self, param: &str) -> Option<Overlay> {
        let own = self.params.contains(param).then(|| Overlay::replacing(param));
        own.or_else(|| self.common.overlay(PREFIX, param))
    }

    fn file(&self) -> Option<&dyn FileForm> {
        Some(self)
    }
}

/// The module that a bias belongs to (`nn.MultiheadAttention` names one `in_proj_bias`); `None` for other parameters.
fn owner(param: &str) -> Option<&str> {
    param.strip_suffix(".bias").or_else(|| param.strip_suffix("_bias"))
}
