//! A look at the attention weights of a forward pass, of any model of the library: a method that changes nothing.

use peft_core::seam::{Attended, AttentionAdapter, AttentionInner, Heads, Method, Place, Site};
use peft_core::{Params, Result};
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Kind, Tensor};

/// Keeps `softmax(Q Kᵀ/√d + mask)`, `[batch, heads, queries, keys]`, of every attention core that it passes by. Named
/// first in a view it is innermost, and sees the keys that the methods after it have put there.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    seen: Arc<Mutex<Vec<Tensor>>>,
}

impl Probe {
    /// What was seen since the last time, in the order of the layers.
    pub fn take(&self) -> Vec<Tensor> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Method for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn attend(&self, site: &Site<'_>, _: &Params) -> Result<Option<Box<dyn AttentionAdapter>>> {
        let Place::Attention = site.place else { return Ok(None) };
        Ok(Some(Box::new(self.clone())))
    }
}

impl AttentionAdapter for Probe {
    fn forward(&self, heads: Heads, inner: &AttentionInner<'_>) -> Result<Attended> {
        let d = heads.q.size4()?.3;
        let scores =
            heads.q.f_matmul(&heads.k.f_transpose(-2, -1)?)?.f_mul_scalar((1.0 / d as f64).sqrt())?;
        let scores = match &heads.mask {
            Some(mask) => scores.f_add(mask)?,
            None => scores,
        };
        let weights = scores.f_softmax(-1, None::<Kind>)?.f_detach()?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(weights);
        inner.forward(heads)
    }
}
