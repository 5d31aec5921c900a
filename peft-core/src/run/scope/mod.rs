//! The cursor that a model is built from. A constructor asks it for layers, blocks and attention cores by name; it
//! hands out handles to the base's tensors, wrapped in the active adapters.

mod stored;
mod weights;

use crate::error::{Error, Result};
use crate::run::Run;
use crate::run::active::Active;
use crate::run::rewrite::Origin;
use crate::run::scope::stored::Stored;
use crate::seam::layer::Placed;
use crate::seam::{
    Attention, Block, Kernel, Layer, Method, Numerics, OwnKernel, Params, Place, Prompt, Role, Site,
    SiteKind, SiteOutline, Weights,
};
use std::collections::BTreeMap;
use std::fmt::Display;
use tch::Tensor;

/// The cursor that a model is built from, a path into the base's names: it is asked for layers, blocks and attention cores
/// by name, and hands out the base's tensors with the active adapters around them. See
/// [`Architecture`](crate::build::Architecture) for a whole model.
///
/// ```
/// use peft_core::build::{Layer, Scope};
/// use peft_core::{Peft, Result, models::TinyConfig};
///
/// /// The feed-forward part of a layer of the lessons' model, and the norm after it.
/// fn part(scope: &Scope<'_>, index: i64) -> Result<[Layer; 3]> {
///     let layer = scope.at("layers").layer(index);
///     let ff = layer.at("ff"); // its first linear layer reads `layers.<index>.ff.0.weight` and `.bias`
///     Ok([ff.linear("0", 32, 128, true)?, ff.linear("2", 128, 32, true)?, layer.layer_norm("n2", 32, 1e-5)?])
/// }
///
/// # fn main() -> Result<()> {
/// # let config = TinyConfig::default();
/// # let peft = Peft::new(config.init(peft_core::tch::Device::Cpu)?, config)?;
/// let parts = peft.view_as(&[], |scope| Ok([part(scope, 0)?, part(scope, 1)?]))?;
/// let wrong = peft.view_as(&[], |scope| scope.linear("haed", 32, 4, true)).unwrap_err().to_string();
/// assert!(wrong.contains("no tensor `haed.weight`") && wrong.contains("closest name it has is `head.weight`"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Scope<'a> {
    run: &'a Run<'a>,
    path: String,
    layer: Option<i64>,
    length_first: bool,
}

impl<'a> Scope<'a> {
    pub(crate) fn root(run: &'a Run<'a>) -> Self {
        Scope { run, path: String::new(), layer: None, length_first: false }
    }

    /// The scope one name further down: `scope.at("encoder").at("layer")`.
    #[must_use]
    pub fn at(&self, leaf: impl Display) -> Scope<'a> {
        Scope { path: self.join(leaf), ..*self }
    }

    /// The scope of layer `index` of the model's stack, `self.<index>`.
    #[must_use]
    pub fn layer(&self, index: i64) -> Scope<'a> {
        Scope { layer: Some(index), ..self.at(index) }
    }

    /// The same scope, for layers whose input has the length before the batch: `[length, batch, width]`, or the two as one,
    /// `[length · batch, width]`. Where each row of a batch has an adapter of its own, its rows are found by that.
    #[must_use]
    pub fn length_first(self) -> Scope<'a> {
        Scope { length_first: true, ..self }
    }

    fn join(&self, leaf: impl Display) -> String {
        if self.path.is_empty() { leaf.to_string() } else { format!("{}.{leaf}", self.path) }
    }

    fn site<'s>(&'s self, name: &'s str, place: Place<'s>, stored: Option<&Stored<'_>>) -> Site<'s> {
        self.run.sites.borrow_mut().push(SiteOutline {
            name: name.to_owned(),
            kind: SiteKind::from(&place),
            shape: stored.map(|s| s.shape.to_vec()).unwrap_or_default(),
            transposed: stored.is_some_and(|s| s.transposed),
            tied: stored.and_then(|s| s.tied).map(str::to_owned),
            layer: self.layer,
        });
        Site { name, place, layer: self.layer, dims: self.run.dims }
    }

    /// What the active methods put here, and whose each is.
    fn adapters<A>(
        &self,
        ask: impl Fn(&dyn Method, &Params) -> Result<Option<A>>,
    ) -> Result<(Vec<&'a Active<'a>>, Vec<A>)> {
        let mut found = (Vec::new(), Vec::new());
        for a in &self.run.active {
            if let Some(adapter) = ask(a.method(), a.params)? {
                a.hits.set(a.hits.get().saturating_add(1));
                found.0.push(a);
                found.1.push(adapter);
            }
        }
        Ok(found)
    }

    /// As [`Scope::adapters`], at a place without weights: a [`Rewrite`] can do nothing with them, so it refuses them.
    fn weightless<A>(
        &self,
        site: &str,
        ask: impl Fn(&dyn Method, &Params) -> Result<Option<A>>,
    ) -> Result<Vec<A>> {
        let (owners, adapters) = self.adapters(ask)?;
        owners.iter().for_each(|owner| owner.places.borrow_mut().push(site.to_owned()));
        match (self.run.rewrite, owners.first()) {
            (Some(rewrite), Some(owner)) => Err(rewrite.refuse(site, owner.method().name())),
            _ => Ok(adapters),
        }
    }

    fn kernel(&self, leaf: &str, kernel: Kernel, stored: &Stored<'_>) -> Result<Layer> {
        let name = self.join(leaf);
        let base = self.base(&kernel, stored)?;
        let place = Place::Layer { kernel: &kernel, shape: stored.shape, base: &base };
        let site = self.site(&name, place, Some(stored));
        let (owners, adapters) = self.adapters(|m, p| placed(m, &site, p))?;
        let weight = stored.tied.map_or_else(|| self.join(&stored.weight), str::to_owned);
        let bias = stored.bias.as_ref().map(|(leaf, _)| self.join(leaf));
        for owner in &owners {
            owner.places.borrow_mut().extend([Some(&weight), bias.as_ref()].into_iter().flatten().cloned());
        }
        check_tokens(
            &name,
            owners.iter().zip(&adapters).map(|(owner, placed)| (owner.name, placed.adapter.tokens())),
        )?;
        let mut layer = Layer { name, kernel, base, adapters };
        if let Some(rewrite) = self.run.rewrite {
            rewrite.layer(
                &mut layer,
                &Origin {
                    weight: self.join(&stored.weight),
                    bias,
                    transposed: stored.transposed,
                    length_first: self.length_first,
                    owners,
                },
            )?;
        }
        Ok(layer)
    }

    /// `leaf.weight` `[out, in]` and, if asked for, `leaf.bias` `[out]`.
    pub fn linear(&self, leaf: &str, inp: i64, out: i64, bias: bool) -> Result<Layer> {
        self.kernel(leaf, Kernel::Linear, &Stored::new(leaf, &[out, inp], bias))
    }

    /// GPT-2's `Conv1D`: a linear layer with a bias whose `leaf.weight` is stored as `[in, out]`.
    pub fn conv1d(&self, leaf: &str, inp: i64, out: i64) -> Result<Layer> {
        let shape = [out, inp];
        let stored = Stored { transposed: true, ..Stored::new(leaf, &shape, true) };
        self.kernel(leaf, Kernel::Linear, &stored)
    }

    /// A linear layer whose weight is the parameter `other` (full name): the head of a model with tied embeddings.
    pub fn tied_linear(&self, leaf: &str, other: &str, inp: i64, out: i64) -> Result<Layer> {
        let shape = [out, inp];
        let stored = Stored { tied: Some(other), ..Stored::new(leaf, &shape, false) };
        self.kernel(leaf, Kernel::Linear, &stored)
    }

    /// A linear layer stored under other names, as `nn.MultiheadAttention` has it: `leaf_weight`, `leaf_bias`.
    pub fn in_proj(&self, leaf: &str, inp: i64, out: i64) -> Result<Layer> {
        let (weight, bias) = (format!("{leaf}_weight"), Some((format!("{leaf}_bias"), out)));
        self.kernel(leaf, Kernel::Linear, &Stored { weight, bias, ..Stored::new(leaf, &[out, inp], true) })
    }

    /// `leaf.weight` `[vocab, dim]`.
    pub fn embedding(&self, leaf: &str, vocab: i64, dim: i64) -> Result<Layer> {
        self.kernel(leaf, Kernel::Embedding, &Stored::new(leaf, &[vocab, dim], false))
    }

    /// `leaf.weight` and `leaf.bias`, both `[dim]`.
    pub fn layer_norm(&self, leaf: &str, dim: i64, eps: f64) -> Result<Layer> {
        self.kernel(leaf, Kernel::LayerNorm { eps }, &Stored::new(leaf, &[dim], true))
    }

    /// `leaf.weight` `[dim]`.
    pub fn rms_norm(&self, leaf: &str, dim: i64, eps: f64) -> Result<Layer> {
        self.kernel(leaf, Kernel::RmsNorm { eps }, &Stored::new(leaf, &[dim], false))
    }

    /// A layer with a kernel of the model's own, a function of its input and its weights: `leaf.weight` of shape `weight`
    /// and, where `bias` says how long it is, `leaf.bias`.
    ///
    /// What changes weights of any shape works on it: full and partial fine-tuning, BitFit, diff pruning, methods with an
    /// [`Adapter::reweight`](crate::seam::Adapter::reweight) for it, and merging. LoRA and its kin refuse it by its
    /// [kind](crate::seam::SiteKind::Own), since they are about matrices.
    ///
    /// A convolution over a sequence, that moves on by 2:
    ///
    /// ```
    /// # use peft_core::build::{Layer, Scope};
    /// fn conv(scope: &Scope<'_>) -> peft_core::Result<Layer> {
    ///     let (out, inp, width) = (8, 4, 3);
    ///     scope.layer_of("conv", &[out, inp, width], Some(out), |x, w| {
    ///         Ok(x.f_conv1d(&w.weight, w.bias.as_ref(), [2], [1], [1], 1)?)
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Scope::linear`]. What the kernel says comes from the forward pass, with the layer's name.
    pub fn layer_of(
        &self,
        leaf: &str,
        weight: &[i64],
        bias: Option<i64>,
        kernel: impl Fn(&Tensor, &Weights) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<Layer> {
        let bias = bias.map(|length| (format!("{leaf}.bias"), length));
        let stored = Stored { bias, ..Stored::new(leaf, weight, false) };
        self.kernel(leaf, Kernel::Own(OwnKernel::new(kernel)), &stored)
    }

    /// A bare parameter of the model, one that is of no layer: a gate, a table of positions. `leaf` is its whole name in
    /// this scope, and `dims` its shape.
    ///
    /// It is the base's tensor, or the copy of an active adapter that trains it: full fine-tuning, partial fine-tuning by
    /// this name, BitFit where it ends in `.bias` or `_bias`, `modules_to_save` with a module that it is in. Training changes
    /// that tensor in place, so compute with it in the forward pass, and not while the model is built.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Shape`], naming the parameter. [`Peft::new`](crate::Peft::new) refuses a name that a
    /// layer has as well: what adapts the layer would not reach it here.
    pub fn param(&self, leaf: &str, dims: &[i64]) -> Result<Tensor> {
        self.run.bare.borrow_mut().push(self.join(leaf));
        self.stored(leaf, dims)
    }

    /// A block site named `leaf` (the scope itself, if that is empty) around a part that is `width` wide.
    pub fn block(&self, leaf: &str, role: Role, width: i64) -> Result<Block> {
        let name = if leaf.is_empty() { self.path.clone() } else { self.join(leaf) };
        let site = self.site(&name, Place::Block { role, width }, None);
        let adapters = self.weightless(&name, |m, p| placed(m, &site, p))?;
        Ok(Block { name, adapters })
    }

    /// The attention core `leaf`, as transformers' models compute it: by `scaled_dot_product_attention` of libtorch, whatever
    /// the [`Numerics`]. `dropout` is the share of the softmax that training drops.
    pub fn attention(&self, leaf: &str, dropout: f64) -> Result<Attention> {
        self.core(leaf, Numerics::Fast, dropout)
    }

    /// The attention core `leaf` of a model that has PyTorch's `nn.MultiheadAttention`: step by step in its order where the
    /// [`Numerics`] are exact, else as [`Scope::attention`].
    pub fn multihead_attention(&self, leaf: &str, dropout: f64) -> Result<Attention> {
        self.core(leaf, self.run.numerics, dropout)
    }

    fn core(&self, leaf: &str, numerics: Numerics, dropout: f64) -> Result<Attention> {
        let name = if leaf.is_empty() { self.path.clone() } else { self.join(leaf) };
        let site = self.site(&name, Place::Attention, None);
        let adapters = self.weightless(&name, |m, p| m.attend(&site, p))?;
        Ok(Attention { name, numerics, dropout, layer: self.layer.unwrap_or_default(), adapters })
    }

    /// What rewrites the model's input.
    pub fn prompts(&self) -> Result<Vec<Box<dyn Prompt>>> {
        let words = self.run.dims.word_embedding().and_then(|name| self.run.base.find(name));
        self.weightless("the input", |m, p| m.prompt(self.run.dims, words.as_ref(), p))
    }
}

/// A token's row can be that of one adapter only; `adapters` are their names, and the tokens that each replaces.
fn check_tokens<'a>(site: &str, adapters: impl Iterator<Item = (&'a str, &'a [i64])>) -> Result<()> {
    let mut taken: BTreeMap<i64, &str> = BTreeMap::new();
    for (name, tokens) in adapters {
        if let Some(first) = tokens.iter().find_map(|t| taken.get(t)) {
            let twice = tokens.iter().copied().filter(|t| taken.get(t) == Some(first));
            return Err(Error::Overlap {
                adapters: [(*first).to_owned(), name.to_owned()],
                site: site.to_owned(),
                tokens: twice.collect(),
            });
        }
        taken.extend(tokens.iter().map(|t| (*t, name)));
    }
    Ok(())
}

/// What a method puts at a layer or a block.
fn placed(method: &dyn Method, site: &Site<'_>, params: &Params) -> Result<Option<Placed>> {
    Ok(method.adapt(site, params)?.map(|adapter| Placed { method: method.name(), adapter }))
}
