//! A prefix of hidden states: what many lessons call prefix tuning.
//!
//! At every layer, `n` trained vectors are put before the layer's input for the attention alone, go through the
//! layer's own projections like words, and are cut off again: `attn([P; x])[n:]`. Unlike prefix tuning as published
//! ([`PrefixTuningConfig`](super::PrefixTuningConfig)) the keys and values are tied to the frozen projections, and
//! queries are computed for the prefix and thrown away.

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig};
use crate::seam::{
    Adapter, Init, Inner, Method, MethodConfig, Outline, Params, Pass, Place, Resolved, Role, Site, open_keys,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::Tensor;

/// Configuration of the hidden-state prefix. PEFT has no such method.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | P | `[num_virtual_tokens, hidden]` | `<attention block>.prefix` | N(0, 1) |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HiddenPrefixConfig {
    /// How many vectors a layer has.
    pub num_virtual_tokens: i64,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

impl Default for HiddenPrefixConfig {
    fn default() -> Self {
        Self { num_virtual_tokens: 20, common: Common::default() }
    }
}

const NAME: &str = "hidden-state prefix";

impl PeftConfig for HiddenPrefixConfig {
    const TYPE: &'static str = "HIDDEN_PREFIX";
}

impl MethodConfig for HiddenPrefixConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        check::positive(NAME, "num_virtual_tokens", self.num_virtual_tokens)?;
        if outline.dims.causal() {
            let why =
                "its attention is causal, and hidden states before the words would need positions".to_owned();
            return Err(Error::Unsupported { method: NAME, site: outline.dims.model_type.clone(), why });
        }
        self.common.resolve(NAME, outline)?;
        Ok(self.resolved(HiddenPrefixMethod))
    }
}

/// The hidden-state prefix in one model.
#[derive(Debug)]
struct HiddenPrefixMethod(Arc<HiddenPrefixConfig>);

impl Method for HiddenPrefixMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Place::Block { role: Role::Attention, width } = site.place else { return Ok(None) };
        let shape = [self.0.num_virtual_tokens, width];
        let prefix = site.param(params, "prefix", &shape, Init::Normal { std: 1.0 })?;
        Ok(Some(Box::new(HiddenPrefix { prefix })))
    }
}

/// `[n, width]` hidden states before the words of one attention block.
#[derive(Debug)]
struct HiddenPrefix {
    prefix: Tensor,
}

impl Adapter for HiddenPrefix {
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let (batch, length, width) = x.size3()?;
        let n = self.prefix.size2()?.0;
        let prefix = self.prefix.f_to_kind(x.kind())?.f_unsqueeze(0)?.f_expand([batch, n, width], false)?;
        let longer = Tensor::f_cat(&[&prefix, x], 1)?;
        let mask = inner.pass.mask.map(|m| open_keys(m, n)).transpose()?;
        let y = inner.forward_in(&longer, Pass { mask: mask.as_ref(), ..inner.pass })?;
        Ok(y.f_narrow(1, n, length)?)
    }
}
