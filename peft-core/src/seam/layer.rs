//! The seam. A layer is a pure kernel `f(x; weights)` over frozen weights, and an [`Adapter`] is middleware
//! around it. The law that holds this together, for every method that can be merged:
//!
//! `forward(x) == kernel(x; reweight(base))`

use crate::error::{Error, Result};
use crate::seam::kernel::{Base, Kernel, Weights, wide};
use crate::seam::low_rank::LowRank;
use crate::seam::pass::Pass;
use std::fmt::Debug;
use tch::Tensor;

/// Middleware around a layer, or around a block of the model.
pub trait Adapter: Debug + Send {
    /// Frozen weights in, adapted weights out. Implemented if and only if the method is a map on weights, that is, if it
    /// can be merged.
    ///
    /// # Errors
    /// [`Error::NotMergeable`] by default.
    fn reweight(&self, weights: Weights) -> Result<Weights> {
        drop(weights);
        Err(Error::NotMergeable { method: UNNAMED, site: String::new() })
    }

    /// The change of the weights as a low-rank product, if it is one, whatever the weights are. Such adapters can be
    /// combined, and mixed in one batch.
    fn low_rank(&self) -> Result<Option<LowRank>> {
        Ok(None)
    }

    /// The tokens whose rows the adapter replaces, at an embedding or a head: no two active adapters may have the same.
    fn tokens(&self) -> &[i64] {
        &[]
    }

    /// The adapted computation. By default the adapted weights are formed; override it where that is wasteful.
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        inner.apply(x, &self.reweight(inner.weights()?)?)
    }
}

/// An adapter at its place. It does not know whose it is, so that an author says a method's name once.
#[derive(Debug)]
pub(crate) struct Placed {
    /// The method's name, for messages.
    pub method: &'static str,
    pub adapter: Box<dyn Adapter>,
}

/// What an adapter calls its method.
const UNNAMED: &str = "";

impl Placed {
    pub fn reweight(&self, site: &str, weights: Weights) -> Result<Weights> {
        self.named(site, self.adapter.reweight(weights))
    }

    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        self.named(inner.site, self.adapter.forward(x, inner))
    }

    fn named<T>(&self, site: &str, result: Result<T>) -> Result<T> {
        result.map_err(|e| match e {
            Error::NotMergeable { method: UNNAMED, .. } => {
                Error::NotMergeable { method: self.method, site: site.to_owned() }
            }
            Error::Unsupported { method, site: unknown, why } if unknown.is_empty() => {
                Error::Unsupported { method, site: site.to_owned(), why }
            }
            other => other,
        })
    }
}

/// One layer of a view: a kernel, its frozen weights, and the adapters that are active there.
#[derive(Debug)]
pub struct Layer {
    pub(crate) name: String,
    pub(crate) kernel: Kernel,
    pub(crate) base: Base,
    pub(crate) adapters: Vec<Placed>,
}

impl Layer {
    /// The layer's output for `x`, through its adapters.
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        let inner = Inner { site: &self.name, core: Core::Layer(self), adapters: &self.adapters, pass };
        inner.forward(x).map_err(|e| e.at(&self.name))
    }

    /// The weights with every adapter folded in.
    ///
    /// # Errors
    /// [`Error::NotMergeable`] when one of them is not a map on weights.
    pub fn merged(&self) -> Result<Weights> {
        self.folded(|_| Ok(()))
    }

    /// As [`Layer::merged`]; `each` sees the weights after every adapter. The chain is computed in f32 at least, and
    /// its result rounds once.
    pub(crate) fn folded(&self, mut each: impl FnMut(&Weights) -> Result<()>) -> Result<Weights> {
        let base = self.base.dense()?;
        let kinds = base.kinds();
        let mut fold = || -> Result<Weights> {
            let mut weights = base.in_kinds(kinds.map(wide))?;
            for adapter in &self.adapters {
                weights = adapter.reweight(&self.name, weights)?;
                each(&weights.in_kinds(kinds)?)?;
            }
            weights.in_kinds(kinds)
        };
        fold().map_err(|e| e.at(&self.name))
    }
}

/// A named place around a part of the model: where bottleneck adapters sit.
#[derive(Debug)]
pub struct Block {
    pub(crate) name: String,
    pub(crate) adapters: Vec<Placed>,
}

/// The part of the model inside a [`Block`].
pub type Body<'a> = &'a dyn Fn(&Tensor, Pass<'_>) -> Result<Tensor>;

impl Block {
    /// Runs `body` on `x` through the block's adapters.
    pub fn around(&self, x: &Tensor, pass: Pass<'_>, body: Body<'_>) -> Result<Tensor> {
        let inner = Inner { site: &self.name, core: Core::Block(body), adapters: &self.adapters, pass };
        inner.forward(x).map_err(|e| e.at(&self.name))
    }
}

#[derive(Clone, Copy)]
enum Core<'a> {
    Layer(&'a Layer),
    Block(Body<'a>),
}

/// The rest of the chain, as one adapter sees it: the adapters before it, and the layer or block at the core.
#[derive(Clone, Copy)]
pub struct Inner<'a> {
    site: &'a str,
    core: Core<'a>,
    adapters: &'a [Placed],
    /// The state of this call.
    pub pass: Pass<'a>,
}

impl Inner<'_> {
    /// Full name of the site.
    pub fn site(&self) -> &str {
        self.site
    }

    /// The rest of the chain on `x`. The result is the caller's alone: it may be added to in place.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_in(x, self.pass)
    }

    /// As [`Inner::forward`], in another call state (a longer mask, say).
    pub fn forward_in(&self, x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        match (self.adapters.split_last(), self.core) {
            (Some((last, before)), core) => {
                last.forward(x, &Inner { site: self.site, core, adapters: before, pass })
            }
            (None, Core::Layer(layer)) => layer.base.apply(layer.kernel, x),
            (None, Core::Block(body)) => body(x, pass),
        }
    }

    /// The weights of the rest of the chain.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a block, which has none; [`Error::NotMergeable`] behind an adapter that is not a map
    /// on weights.
    pub fn weights(&self) -> Result<Weights> {
        let Core::Layer(layer) = self.core else {
            return Err(no_weights(self.site));
        };
        self.adapters.iter().try_fold(layer.base.dense()?, |w, a| a.reweight(self.site, w))
    }

    /// The layer's kernel on `x` with the given weights.
    pub fn apply(&self, x: &Tensor, weights: &Weights) -> Result<Tensor> {
        match self.core {
            Core::Layer(layer) => layer.kernel.apply(x, weights),
            Core::Block(_) => Err(no_weights(self.site)),
        }
    }
}

fn no_weights(site: &str) -> Error {
    let why = "it is a block, which has no weights: the adapter needs a `forward` of its own".to_owned();
    Error::Unsupported { method: "an adapter by weights", site: site.to_owned(), why }
}

impl Debug for Inner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("site", &self.site).field("adapters", &self.adapters).finish()
    }
}
