//! Partial fine-tuning: some of the model's own parameters are trained, the last layers above all. Howard and Ruder
//! 2018, <https://arxiv.org/abs/1801.06146>, section 3.3; Lee et al. 2019, <https://arxiv.org/abs/1911.03090>.
//!
//! PEFT has no file form for it; this one is our own. The trained parameters are copies that stand for the base's.

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig, modules};
use crate::methods::copies::Copies;
use crate::seam::{MethodConfig, Outline, Overlay, PREFIX, Resolved, Role, SiteKind};
use crate::target::Names;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Configuration of partial fine-tuning. Each trained parameter `p` of the model is stored as `base_model.model.p`, in
/// the base's dtype. A head is best named in `modules_to_save`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartialConfig {
    /// How many of the model's last layers are trained whole.
    pub last_layers: Option<i64>,
    /// Parameters to train, beside those layers or alone. An entry stands for a parameter, or for all those of a module:
    /// in a list by the full name or its end from a dot on, alone as a regular expression for the full name. A tied
    /// parameter stands for the one whose tensor it is.
    pub target_parameters: Option<Names>,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

const NAME: &str = "partial fine-tuning";

impl PartialConfig {
    /// Full names of the last layers.
    fn layers<'o>(&self, outline: &'o Outline) -> Result<Vec<&'o str>> {
        let Some(n) = self.last_layers else { return Ok(Vec::new()) };
        let all = outline.dims.sizes()?.layers;
        let range = format!("from 1 to the model's {all}");
        check::should_be((1..=all).contains(&n), range, NAME, "last_layers", n)?;
        let whole = outline.sites.iter().filter(|s| s.kind == SiteKind::Block(Role::Layer));
        let last = whole.filter(|s| s.layer.is_some_and(|i| i >= all.saturating_sub(n)));
        Ok(last.map(|s| s.name.as_str()).collect())
    }
}

impl PeftConfig for PartialConfig {
    const TYPE: &'static str = "PARTIAL";
}

impl MethodConfig for PartialConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.common.resolve(NAME, outline)?;
        let mut chosen = match &self.target_parameters {
            Some(names) => {
                names.hits(NAME, "target_parameters", outline.params.iter().flat_map(|p| paths(p)))?
            }
            None if self.last_layers.is_none() => {
                let message = "is missing, and so is last_layers: nothing would be trained";
                return Err(Error::config(NAME, "target_parameters", message));
            }
            None => BTreeSet::new(),
        };
        chosen.extend(self.layers(outline)?.into_iter().map(str::to_owned));
        let named = outline.params.iter().filter(|p| paths(p).any(|path| chosen.contains(path)));
        let own = named.map(|p| outline.stored_name(p));
        let params: Vec<&str> = own.filter(|p| self.common.overlay(PREFIX, p).is_none()).collect();
        Ok(self.resolved(|_| Copies::new(NAME, params, Overlay::replacing)))
    }
}

/// A parameter's name and those of the modules it is in.
fn paths(param: &str) -> impl Iterator<Item = &str> {
    std::iter::once(param).chain(modules(param))
}
