//! The seam. A layer is a pure kernel `f(x; weights)` over frozen weights, and an [`Adapter`] is middleware
//! around it. The law that holds this together, for every method that can be merged:
//!
//! `forward(x) == kernel(x; reweight(base))`

use crate::attention::KvCache;
use crate::quant::Nf4;
use crate::{Error, LowRank, Result};
use std::fmt::Debug;
use tch::{Kind, Tensor};

/// Dense weights of one layer; the shapes are the [`Kernel`]'s.
#[derive(Debug)]
pub struct Weights {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

impl Weights {
    /// `W + delta`, in W's dtype.
    pub fn plus(self, delta: &Tensor) -> Result<Self> {
        let weight = self.weight.f_add(delta)?.f_to_kind(self.weight.kind())?;
        Ok(Self { weight, ..self })
    }

    /// Dtypes of the weight and of the bias; that of the weight, where there is none.
    fn kinds(&self) -> [Kind; 2] {
        [self.weight.kind(), self.bias.as_ref().map_or(self.weight.kind(), Tensor::kind)]
    }

    /// The same in other dtypes; handles, where they have them already.
    fn in_kinds(&self, [weight, bias]: [Kind; 2]) -> Result<Self> {
        let bias = self.bias.as_ref().map(|b| b.f_to_kind(bias)).transpose()?;
        Ok(Self { weight: self.weight.f_to_kind(weight)?, bias })
    }
}

/// f32 for what is narrower.
fn wide(kind: Kind) -> Kind {
    if matches!(kind, Kind::Half | Kind::BFloat16) { Kind::Float } else { kind }
}

/// What a layer computes from its input and its weights. It holds no tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// `y = x Wᵀ + b`; W `[out, in]`, b `[out]`.
    Linear,
    /// `y = W[ids]`; W `[vocab, dim]`.
    Embedding,
    /// `y = (x − mean) / √(var + eps) ⊙ W + b`; W and b `[dim]`.
    LayerNorm { eps: f64 },
    /// `y = x / √(mean(x²) + eps) ⊙ W`; W `[dim]`.
    RmsNorm { eps: f64 },
}

impl Kernel {
    fn apply(self, x: &Tensor, w: &Weights) -> Result<Tensor> {
        Ok(match self {
            Kernel::Linear => x.f_linear(&w.weight, w.bias.as_ref())?,
            Kernel::Embedding => Tensor::f_embedding(&w.weight, x, -1, false, false)?,
            Kernel::LayerNorm { eps } => {
                x.f_layer_norm(w.weight.size(), Some(&w.weight), w.bias.as_ref(), eps, true)?
            }
            Kernel::RmsNorm { eps } => x.f_rms_norm(w.weight.size(), Some(&w.weight), eps)?,
        })
    }
}

/// How the frozen weights are stored. Methods see dense weights whatever it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum Base {
    Dense(Weights),
    /// A linear layer's weight in 4 bits.
    Nf4 {
        weight: Box<Nf4>,
        bias: Option<Tensor>,
    },
}

impl Base {
    /// The weights as the kernel needs them: handles where they are dense already, otherwise formed at every call.
    pub fn dense(&self) -> Result<Weights> {
        match self {
            Base::Dense(w) => Ok(Weights {
                weight: w.weight.shallow_clone(),
                bias: w.bias.as_ref().map(Tensor::shallow_clone),
            }),
            Base::Nf4 { weight, bias } => {
                Ok(Weights { weight: weight.dequantise()?, bias: bias.as_ref().map(Tensor::shallow_clone) })
            }
        }
    }

    /// Whether there is a bias.
    pub fn has_bias(&self) -> bool {
        match self {
            Base::Dense(w) => w.bias.is_some(),
            Base::Nf4 { bias, .. } => bias.is_some(),
        }
    }

    fn apply(&self, kernel: Kernel, x: &Tensor) -> Result<Tensor> {
        match self {
            Base::Dense(w) => kernel.apply(x, w),
            Base::Nf4 { weight, bias } => weight.linear(x, bias.as_ref()),
        }
    }
}

/// What travels with one forward call, and is kept nowhere: views hold no per-call state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pass<'a> {
    /// Dropout is on.
    pub train: bool,
    /// Added to the attention scores: 0 where a key may be seen, the dtype's lowest number where not;
    /// `[batch, 1, 1 or queries, keys]`.
    pub mask: Option<&'a Tensor>,
    /// Every token sees itself and those before it. Where there is a mask, it says so itself.
    pub causal: bool,
    /// Keys and values of earlier calls, for generation.
    pub cache: Option<&'a KvCache>,
    /// Logits are wanted for the last position alone.
    pub last: bool,
}

impl Pass<'_> {
    /// Dropout off.
    pub fn eval() -> Self {
        Self::default()
    }
    /// Dropout on.
    pub fn train() -> Self {
        Self { train: true, ..Self::default() }
    }

    /// `x` with a share `p` of it dropped, where the call has dropout on.
    pub fn dropped(&self, x: Tensor, p: f64) -> Result<Tensor> {
        if self.train && p > 0.0 { Ok(x.f_dropout(p, true)?) } else { Ok(x) }
    }
}

/// Middleware around a layer, or around a block of the model.
pub trait Adapter: Debug + Send {
    /// The method's name, for messages.
    fn name(&self) -> &'static str;

    /// Frozen weights in, adapted weights out; `site` is for the error. Implemented if and only if the method is
    /// a map on weights, that is, if it can be merged.
    ///
    /// # Errors
    /// [`Error::NotMergeable`] by default.
    fn reweight(&self, site: &str, weights: Weights) -> Result<Weights> {
        drop(weights);
        Err(Error::NotMergeable { method: self.name(), site: site.to_owned() })
    }

    /// The change of the weights as a low-rank product, if it is one, whatever the weights are. Such adapters can be
    /// combined, and mixed in one batch.
    fn low_rank(&self) -> Result<Option<LowRank>> {
        Ok(None)
    }

    /// The adapted computation. By default the adapted weights are formed; override it where that is wasteful.
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        inner.apply(x, &self.reweight(inner.site(), inner.weights()?)?)
    }
}

/// One layer of a view: a kernel, its frozen weights, and the adapters that are active there.
#[derive(Debug)]
pub struct Layer {
    pub(crate) name: String,
    pub(crate) kernel: Kernel,
    pub(crate) base: Base,
    pub(crate) adapters: Vec<Box<dyn Adapter>>,
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
    pub(crate) adapters: Vec<Box<dyn Adapter>>,
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
    adapters: &'a [Box<dyn Adapter>],
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
