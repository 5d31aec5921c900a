//! LN tuning: the model's norms are trained and nothing else. Zhao et al. 2023, <https://arxiv.org/abs/2312.11420>,
//! section 3.
//!
//! `y = norm(x) ⊙ w' + b'`, with copies w', b' of the norm's own weight and bias. They keep the base's dtype. Of two
//! adapters at one norm, the one named last counts.

use crate::error::Result;
use crate::methods::config::{Common, PeftConfig};
use crate::methods::copies::Copies;
use crate::seam::{Counting, MethodConfig, Outline, Overlay, PREFIX, Resolved, SiteKind};
use crate::target::{Adaptable, Layers, Targets, defaults};
use serde::{Deserialize, Serialize};

/// Configuration of LN tuning; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | w' | `[dim]` | `<site>.ln_tuning_layers.weight` | the norm's weight |
/// | b' | `[dim]` | `<site>.ln_tuning_layers.bias` | the norm's bias, if it has one |
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LnTuningConfig {
    /// Norms to train.
    #[serde(flatten)]
    pub targets: Targets,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

const NAME: &str = "LN tuning";
const CAN: Adaptable =
    Adaptable { method: NAME, kinds: &[SiteKind::Norm], default: Some(defaults::ln_tuning) };

impl PeftConfig for LnTuningConfig {
    const TYPE: &'static str = "LN_TUNING";
}

impl MethodConfig for LnTuningConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.common.resolve(NAME, outline)?;
        let found = self.targets.resolve(&CAN, &Layers::default(), self.common.saved(), outline)?;
        self.targets.target_modules = Some(found.names);
        let of_norm = |p: &&str| p.rsplit_once('.').is_some_and(|(site, _)| found.sites.contains(site));
        let params = outline.params.iter().map(String::as_str).filter(of_norm);
        Ok(self.resolved(|_| Copies::new(NAME, params, copy)))
    }
}

/// The copy of a norm's parameter.
fn copy(param: &str) -> Overlay {
    let (site, leaf) = param.rsplit_once('.').unwrap_or(("", param));
    let key = format!("{PREFIX}{site}.ln_tuning_layers.{leaf}");
    Overlay { key, counting: Counting::Adds, saved_beside: false }
}
