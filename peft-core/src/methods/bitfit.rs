//! BitFit: the model's biases are trained and nothing else. Ben Zaken et al. 2021, <https://arxiv.org/abs/2106.10199>,
//! section 3.
//!
//! PEFT has no file form for it; this one is our own. The trained biases are copies that stand for the base's.

use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig};
use crate::methods::copies::Copies;
use crate::seam::{MethodConfig, Outline, Overlay, PREFIX, Resolved};
use crate::target::Targets;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Configuration of BitFit. Each trained bias `p` of the model is stored as `base_model.model.p`, in the base's dtype.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BitFitConfig {
    /// Modules (linear layers and norms) whose biases are trained, by PEFT's rules; without `target_modules` all. The
    /// paper's smaller variant has those of the query and of the feed-forward's first layer.
    #[serde(flatten)]
    pub targets: Targets,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

const NAME: &str = "BitFit";

impl PeftConfig for BitFitConfig {
    const TYPE: &'static str = "BITFIT";
}

impl MethodConfig for BitFitConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.common.resolve(NAME, outline)?;
        let modules = outline.params.iter().filter_map(|p| owner(p));
        let mut chosen: BTreeSet<String> = match &self.targets.target_modules {
            Some(names) => names.hits(NAME, "target_modules", modules.clone())?,
            None => modules.clone().map(str::to_owned).collect(),
        };
        if let Some(names) = &self.targets.exclude_modules {
            let excluded = names.hits(NAME, "exclude_modules", modules)?;
            chosen.retain(|m| !excluded.contains(m));
        }
        let ours = |p: &&str| {
            owner(p).is_some_and(|m| chosen.contains(m)) && self.common.overlay(PREFIX, p).is_none()
        };
        let params: Vec<&str> = outline.params.iter().map(String::as_str).filter(ours).collect();
        if params.is_empty() {
            let message = "leaves no bias to train in this model";
            return Err(Error::config(NAME, "target_modules", message));
        }
        Ok(self.resolved(|_| Copies::new(NAME, params, Overlay::replacing)))
    }
}

/// The module that a bias belongs to (`nn.MultiheadAttention` names one `in_proj_bias`); `None` for other parameters.
fn owner(param: &str) -> Option<&str> {
    param.strip_suffix(".bias").or_else(|| param.strip_suffix("_bias"))
}
