//! The cursor that a model is built from. A constructor asks it for layers, blocks and attention cores by name; it
//! hands out handles to the base's tensors, wrapped in the active adapters.

use crate::attention::{Attention, AttentionAdapter, Softmax};
use crate::layer::{Base, Block, Kernel, Layer, Weights};
use crate::methods::{Counting, Method};
use crate::model::{Dims, Prompt};
use crate::{Adapter, Error, Init, Params, Result};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use tch::Tensor;

/// Every key of a tuner's file starts with it: PEFT wraps the model twice.
pub const PREFIX: &str = "base_model.model.";

/// What a block of the model does, so that a method can choose among blocks without knowing their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Self-attention with its output projection, before the residual connection.
    Attention,
    /// The feed-forward part, before the residual connection.
    FeedForward,
    /// A whole layer of the model.
    Layer,
}

/// What kind of place a [`Site`] is.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A layer with weights of the given shape.
    Layer { kernel: Kernel, shape: &'a [i64], base: &'a Base },
    /// A block whose input and output are `width` wide.
    Block { role: Role, width: i64 },
    /// An attention core.
    Attention,
}

/// A place in the model, as a method sees it.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Full name: `bert.encoder.layer.0.attention.self.query`.
    pub name: &'a str,
    pub place: Place<'a>,
    /// Index of the model's layer it is in, if it is in one.
    pub layer: Option<i64>,
    /// Sizes of the model.
    pub dims: &'a Dims,
}

impl Site<'_> {
    /// The method's parameter `leaf` at this site: `base_model.model.<site>.<leaf>`.
    pub fn param(&self, params: &Params, leaf: &str, dims: &[i64], init: Init) -> Result<Tensor> {
        params.get_or_init(&format!("{PREFIX}{}.{leaf}", self.name), dims, init)
    }

    /// Out and in of a linear layer, if this is one.
    pub fn linear(&self) -> Option<(i64, i64)> {
        match self.place {
            Place::Layer { kernel: Kernel::Linear, shape: &[out, inp], .. } => Some((out, inp)),
            _ => None,
        }
    }
}

/// What a constructor visited: the model's sites and parameters by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Sizes of the model.
    pub dims: Dims,
    /// Name and kind of every site, in the constructor's order.
    pub sites: Vec<(String, SiteKind)>,
    /// Every parameter of the base, in the constructor's order.
    pub params: Vec<String>,
}

/// [`Place`] without its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SiteKind {
    Linear,
    Embedding,
    Norm,
    Block(Role),
    Attention,
}

impl Display for SiteKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SiteKind::Linear => "a linear layer",
            SiteKind::Embedding => "an embedding",
            SiteKind::Norm => "a norm",
            SiteKind::Block(_) => "a block of the model",
            SiteKind::Attention => "an attention core",
        })
    }
}

impl From<&Place<'_>> for SiteKind {
    fn from(place: &Place<'_>) -> Self {
        match place {
            Place::Layer { kernel: Kernel::Linear, .. } => SiteKind::Linear,
            Place::Layer { kernel: Kernel::Embedding, .. } => SiteKind::Embedding,
            Place::Layer { kernel: Kernel::LayerNorm { .. }, .. } => SiteKind::Norm,
            Place::Block { role, .. } => SiteKind::Block(*role),
            Place::Attention => SiteKind::Attention,
        }
    }
}

/// One active adapter, and how often the constructor met a place that it adapts.
#[derive(Debug)]
pub(crate) struct Active<'a> {
    pub method: &'a dyn Method,
    pub params: &'a Params,
    pub hits: Cell<usize>,
}

/// One run of a constructor.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    pub base: &'a Params,
    pub dims: Dims,
    pub active: Vec<Active<'a>>,
    pub sites: RefCell<Vec<(String, SiteKind)>>,
    pub params: RefCell<Vec<String>>,
    /// Filled while merging: the folded value of every parameter that an adapter changes.
    pub merged: Option<RefCell<BTreeMap<String, Tensor>>>,
}

/// The constructor's cursor: a path into the base's names.
#[derive(Debug)]
pub struct Scope<'a> {
    build: &'a Build<'a>,
    path: String,
    layer: Option<i64>,
}

impl<'a> Scope<'a> {
    pub(crate) fn root(build: &'a Build<'a>) -> Self {
        Scope { build, path: String::new(), layer: None }
    }

    /// The scope one name further down: `scope.at("encoder").at("layer")`.
    #[must_use]
    pub fn at(&self, leaf: impl Display) -> Scope<'a> {
        Scope { build: self.build, path: self.join(leaf), layer: self.layer }
    }

    /// The scope of layer `index` of the model's stack, `self.<index>`.
    #[must_use]
    pub fn layer(&self, index: i64) -> Scope<'a> {
        Scope { layer: Some(index), ..self.at(index) }
    }

    fn join(&self, leaf: impl Display) -> String {
        if self.path.is_empty() { leaf.to_string() } else { format!("{}.{leaf}", self.path) }
    }

    fn site<'s>(&'s self, name: &'s str, place: Place<'s>) -> Site<'s> {
        self.build.sites.borrow_mut().push((name.to_owned(), SiteKind::from(&place)));
        Site { name, place, layer: self.layer, dims: &self.build.dims }
    }

    /// A parameter of the base, or the active overlay's copy of it.
    fn param(&self, leaf: &str, dims: &[i64]) -> Result<Tensor> {
        let name = self.join(leaf);
        let base = self.build.base.get(&name, dims)?;
        self.build.params.borrow_mut().push(name.clone());
        for a in self.build.active.iter().rev() {
            let Some(overlay) = a.method.overlay(&name) else { continue };
            if !overlay.beside {
                a.hits.set(a.hits.get().saturating_add(1));
            }
            let copy = a.params.get_or_else(&overlay.key, dims, || Ok(base.f_detach_copy()?))?;
            self.record(&name, || Ok(copy.shallow_clone()))?;
            return Ok(copy);
        }
        Ok(base)
    }

    fn record(&self, name: &str, value: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if let Some(merged) = &self.build.merged {
            let _guard = tch::no_grad_guard();
            merged.borrow_mut().insert(name.to_owned(), value()?.f_detach()?);
        }
        Ok(())
    }

    fn adapters<A: ?Sized>(
        &self,
        ask: impl Fn(&dyn Method, &Params) -> Result<Option<Box<A>>>,
    ) -> Result<Vec<Box<A>>> {
        let mut found = Vec::new();
        for a in &self.build.active {
            if let Some(adapter) = ask(a.method, a.params)? {
                a.hits.set(a.hits.get().saturating_add(1));
                found.push(adapter);
            }
        }
        Ok(found)
    }

    fn refuse_merge(&self, site: &str, method: Option<&'static str>) -> Result<()> {
        match method {
            Some(method) if self.build.merged.is_some() => {
                Err(Error::NotMergeable { method, site: site.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// A layer `leaf` whose parameters are called `weight` and `bias` (in full) and have the given shapes.
    fn kernel(
        &self,
        leaf: &str,
        kernel: Kernel,
        weight: (&str, &[i64]),
        bias: Option<(&str, &[i64])>,
    ) -> Result<Layer> {
        let name = self.join(leaf);
        let base = Base::Dense(Weights {
            weight: self.param(weight.0, weight.1)?,
            bias: bias.map(|(leaf, dims)| self.param(leaf, dims)).transpose()?,
        });
        let site = self.site(&name, Place::Layer { kernel, shape: weight.1, base: &base });
        let adapters = self.adapters(|m, p| m.adapt(&site, p))?;
        let layer = Layer { name, kernel, base, adapters };
        if self.build.merged.is_some() && !layer.adapters.is_empty() {
            let _guard = tch::no_grad_guard();
            let folded = layer.merged()?;
            if folded.bias.is_some() != bias.is_some() {
                let why = "the adapter adds a bias to a layer that has none, or takes one away".to_owned();
                return Err(Error::Unsupported { method: "merging", site: layer.name, why });
            }
            self.record(&self.join(weight.0), || Ok(folded.weight))?;
            if let (Some((leaf, _)), Some(folded)) = (bias, folded.bias) {
                self.record(&self.join(leaf), || Ok(folded))?;
            }
        }
        Ok(layer)
    }

    /// `leaf.weight` `[out, in]` and, if asked for, `leaf.bias` `[out]`.
    pub fn linear(&self, leaf: &str, inp: i64, out: i64, bias: bool) -> Result<Layer> {
        let (w, b) = (format!("{leaf}.weight"), format!("{leaf}.bias"));
        let bias_dims = [out];
        self.kernel(leaf, Kernel::Linear, (&w, &[out, inp]), bias.then_some((b.as_str(), &bias_dims[..])))
    }

    /// A linear layer stored under other names, as `nn.MultiheadAttention` has it: `leaf_weight`, `leaf_bias`.
    pub fn packed_linear(&self, leaf: &str, inp: i64, out: i64) -> Result<Layer> {
        let (w, b) = (format!("{leaf}_weight"), format!("{leaf}_bias"));
        self.kernel(leaf, Kernel::Linear, (&w, &[out, inp]), Some((&b, &[out])))
    }

    /// `leaf.weight` `[vocab, dim]`.
    pub fn embedding(&self, leaf: &str, vocab: i64, dim: i64) -> Result<Layer> {
        self.kernel(leaf, Kernel::Embedding, (&format!("{leaf}.weight"), &[vocab, dim]), None)
    }

    /// `leaf.weight` and `leaf.bias`, both `[dim]`.
    pub fn layer_norm(&self, leaf: &str, dim: i64, eps: f64) -> Result<Layer> {
        let (w, b) = (format!("{leaf}.weight"), format!("{leaf}.bias"));
        self.kernel(leaf, Kernel::LayerNorm { eps }, (&w, &[dim]), Some((&b, &[dim])))
    }

    /// A block site named `leaf` (the scope itself, if that is empty) around a part that is `width` wide.
    pub fn block(&self, leaf: &str, role: Role, width: i64) -> Result<Block> {
        let name = if leaf.is_empty() { self.path.clone() } else { self.join(leaf) };
        let site = self.site(&name, Place::Block { role, width });
        let adapters: Vec<Box<dyn Adapter>> = self.adapters(|m, p| m.adapt(&site, p))?;
        self.refuse_merge(&name, adapters.first().map(|a| a.name()))?;
        Ok(Block { name, adapters })
    }

    /// The attention core `leaf`.
    pub fn attention(&self, leaf: &str, softmax: Softmax, dropout: f64) -> Result<Attention> {
        let name = self.join(leaf);
        let site = self.site(&name, Place::Attention);
        let adapters: Vec<Box<dyn AttentionAdapter>> = self.adapters(|m, p| m.attend(&site, p))?;
        self.refuse_merge(&name, adapters.first().map(|a| a.name()))?;
        Ok(Attention { name, softmax, dropout, adapters })
    }

    /// What rewrites the model's input.
    pub fn prompts(&self) -> Result<Vec<Box<dyn Prompt>>> {
        let words = self.build.base.find(&self.build.dims.word_embedding);
        let prompts: Vec<Box<dyn Prompt>> =
            self.adapters(|m, p| m.prompt(&self.build.dims, words.as_ref(), p))?;
        self.refuse_merge("the input", prompts.first().map(|a| a.name()))?;
        Ok(prompts)
    }
}

/// How an overlay's copies are counted; see [`Method::overlay`].
pub(crate) fn replaces(method: &dyn Method, name: &str) -> bool {
    method.overlay(name).is_some_and(|o| o.counting == Counting::Replaces)
}
