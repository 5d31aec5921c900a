//! Keys and values of the tokens that a causal model has seen, so that each new token costs one pass over itself.

use crate::error::{Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use tch::Tensor;

/// One generation's keys and values, `[batch, kv_heads, tokens, d]` a layer.
///
/// It travels in [`Pass::cache`](crate::seam::pass::Pass); the view stays as it is. Buffers grow by doubling and are written in
/// place, so it is for use without gradients.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: RefCell<BTreeMap<i64, [Tensor; 2]>>,
    length: Cell<i64>,
    virtual_tokens: Cell<i64>,
}

impl KvCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many tokens it holds.
    pub fn len(&self) -> i64 {
        self.length.get()
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts the keys and values of further tokens behind those of layer `layer`, and returns all of them.
    ///
    /// # Errors
    /// [`Error::Input`] where gradients are recorded, as the buffers are written in place; and for another batch than the
    /// one that the cache holds.
    pub fn extend(&self, layer: i64, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        if k.requires_grad() || v.requires_grad() {
            return Err(Error::Input("a cache is for calls without gradients: use tch::no_grad".into()));
        }
        let mut layers = self.layers.borrow_mut();
        let ((rows, _, more, _), start) = (k.size4()?, self.len());
        let held = layers.get(&layer).map(|[k, _]| k.size4()).transpose()?.map_or(rows, |s| s.0);
        if held != rows {
            return Err(Error::Input(format!("a batch of {rows} rows for a cache of {held}")));
        }
        let end = start.saturating_add(more);
        let room = layers.get(&layer).map(|[k, _]| k.size4()).transpose()?.map_or(0, |s| s.2);
        if room < end {
            let capacity = end.max(room.saturating_mul(2));
            let grown = |old: Option<&Tensor>, new: &Tensor| -> Result<Tensor> {
                let (b, h, _, d) = new.size4()?;
                let buffer = Tensor::f_empty([b, h, capacity, d], (new.kind(), new.device()))?;
                if let Some(old) = old {
                    buffer.f_narrow(2, 0, start)?.f_copy_(&old.f_narrow(2, 0, start)?)?;
                }
                Ok(buffer)
            };
            let old = layers.get(&layer);
            let buffers = [grown(old.map(|[k, _]| k), k)?, grown(old.map(|[_, v]| v), v)?];
            layers.insert(layer, buffers);
        }
        let Some([keys, values]) = layers.get(&layer) else {
            return Err(Error::Input(format!("the cache lost layer {layer}")));
        };
        keys.f_narrow(2, start, more)?.f_copy_(k)?;
        values.f_narrow(2, start, more)?.f_copy_(v)?;
        Ok((keys.f_narrow(2, 0, end)?, values.f_narrow(2, 0, end)?))
    }

    /// How many of its tokens are a prompt's and not the batch's.
    pub fn virtual_tokens(&self) -> i64 {
        self.virtual_tokens.get()
    }

    /// Counts further tokens as seen, `virtual_tokens` of them a prompt's; called by the model once all its layers are
    /// extended.
    pub fn advance(&self, tokens: i64, virtual_tokens: i64) {
        self.length.set(self.len().saturating_add(tokens));
        self.virtual_tokens.set(self.virtual_tokens().saturating_add(virtual_tokens));
    }
}
