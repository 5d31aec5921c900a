//! BEFT: a bias is learned beside the value projections and nothing else. Huang et al. 2025,
//! <https://arxiv.org/abs/2509.15974>.
//!
//! `y = W x + b + v`, with the base's bias b, if it has one.

use crate::error::Result;
use crate::methods::config::{Common, PeftConfig};
use crate::seam::{Adapter, Init, Inner, Method, MethodConfig, Outline, Params, Resolved, Site, Weights};
use crate::target::{Adaptable, Layers, Names, Targets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tch::Tensor;

/// Configuration of BEFT; field names and defaults are PEFT's. Only layers that have a bias can be merged. PEFT has no
/// BEFT on GPT-2's `Conv1D`, and cannot read an adapter with one.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | v | `[1, out]` | `<site>.beft_bias` | 0; N(0, 1) for `false` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BeftConfig {
    /// Linear layers to adapt; `None` is PEFT's default for the model type, the value projection.
    pub target_modules: Option<Names>,
    /// Whether what is added starts as 0; if not, it is drawn from N(0, 1).
    pub init_weights: bool,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

impl Default for BeftConfig {
    fn default() -> Self {
        Self { target_modules: None, init_weights: true, common: Common::default() }
    }
}

const NAME: &str = "BEFT";
const CAN: Adaptable = Adaptable::linear(NAME, value_projections);

impl PeftConfig for BeftConfig {
    const TYPE: &'static str = "BEFT";
}

/// What PEFT targets when the config names nothing.
fn value_projections(model_type: &str) -> Option<&'static [&'static str]> {
    match model_type {
        "llama" | "mistral" | "qwen2" => Some(&["v_proj"]),
        "bert" | "roberta" => Some(&["value"]),
        _ => None,
    }
}

impl MethodConfig for BeftConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.common.resolve(NAME, outline)?;
        let targets = Targets { target_modules: self.target_modules.take(), exclude_modules: None };
        let found = targets.resolve(&CAN, &Layers::default(), self.common.saved(), outline)?;
        self.target_modules = Some(found.names);
        let start = if self.init_weights { Init::Zeros } else { Init::Normal { std: 1.0 } };
        Ok(self.resolved(|_| BeftMethod { sites: found.sites, start }))
    }
}

/// BEFT in one model.
#[derive(Debug)]
struct BeftMethod {
    /// The adapted layers.
    sites: BTreeSet<String>,
    start: Init,
}

impl Method for BeftMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Some((out, _)) = site.linear_of(&self.sites) else { return Ok(None) };
        Ok(Some(Box::new(Beft { bias: site.param(params, "beft_bias", &[1, out], self.start)? })))
    }
}

/// BEFT at one linear layer.
#[derive(Debug)]
pub struct Beft {
    /// What is added to every output, `[1, out]` as in PEFT's files.
    pub bias: Tensor,
}

impl Adapter for Beft {
    /// `b + v`; v where there is no b.
    fn reweight(&self, w: Weights) -> Result<Weights> {
        let own = self.bias.f_view([-1])?;
        let bias = match w.bias {
            Some(b) => b.f_add(&own)?.f_to_kind(b.kind())?,
            None => own.f_to_kind(w.weight.kind())?,
        };
        Ok(Weights { bias: Some(bias), ..w })
    }

    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let (mut y, own) = (inner.forward(x)?, self.bias.f_view([-1])?);
        if y.kind() == own.kind() { Ok(y.f_add_(&own)?) } else { Ok(y.f_add(&own)?.f_to_kind(y.kind())?) }
    }
}
