//! LN tuning: the model's norms are trained and nothing else. Zhao et al. 2023, <https://arxiv.org/abs/2312.11420>,
//! section 3.
//!
//! `y = norm(x) ⊙ w' + b'`, with copies w', b' of the norm's own weight and bias. They keep the base's dtype. Of two
//! adapters at one norm, the one named last counts.

use crate::error::Result;
use crate::methods::config::{Common, PeftConfig};
use crate::seam::method::{Counting, FileForm, Method, Overlay};
use crate::seam::site::{Outline, PREFIX, SiteKind};
use crate::target::{LayerFilter, Names, Selection, defaults};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Configuration of LN tuning; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | w' | `[dim]` | `<site>.ln_tuning_layers.weight` | the norm's weight |
/// | b' | `[dim]` | `<site>.ln_tuning_layers.bias` | the norm's bias, if it has one |
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LnTuningConfig {
    /// Norms to train; `None` is PEFT's default for the model type.
    pub target_modules: Option<Names>,
    pub exclude_modules: Option<Names>,
    #[serde(flatten)]
    pub common: Common,
    /// The norms that `target_modules` stands for in this model; filled when the adapter is added.
    #[serde(skip)]
    pub sites: BTreeSet<String>,
}

const NAME: &str = "LN tuning";

impl PeftConfig for LnTuningConfig {
    const TYPE: &'static str = "LN_TUNING";
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Method for LnTuningConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        self.common.prepare(NAME, outline)?;
        let found = Selection {
            method: NAME,
            supported: &[SiteKind::Norm],
            target_modules: self.target_modules.as_ref(),
            default: Some(defaults::ln_tuning),
            exclude_modules: self.exclude_modules.as_ref(),
            layers: LayerFilter::default(),
            modules_to_save: self.common.saved(),
        }
        .resolve(outline)?;
        (self.target_modules, self.sites) = (Some(found.names), found.sites);
        Ok(())
    }

    fn overlay(&self, param: &str) -> Option<Overlay> {
        let (site, leaf) = param.rsplit_once('.')?;
        if !self.sites.contains(site) {
            return self.common.overlay(PREFIX, param);
        }
        let key = format!("{PREFIX}{site}.ln_tuning_layers.{leaf}");
        Some(Overlay { key, counting: Counting::Adds, beside: false })
    }

    fn file(&self) -> Option<&dyn FileForm> {
        Some(self)
    }
}
