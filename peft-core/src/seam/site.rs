//! A place in the model as a method sees it, and the outline of all places.

use crate::error::{Error, Result};
use crate::seam::dims::Dims;
use crate::seam::init::Init;
use crate::seam::kernel::{Base, Kernel};
use crate::seam::params::Params;
use std::collections::BTreeSet;
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
    Layer { kernel: &'a Kernel, shape: &'a [i64], base: &'a Base },
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

    /// As [`Site::param`], with the fresh tensor computed by `make`.
    pub fn param_from(
        &self,
        params: &Params,
        leaf: &str,
        dims: &[i64],
        make: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        params.get_or_else(&format!("{PREFIX}{}.{leaf}", self.name), dims, make)
    }

    /// The dense weight `[out, in]` (`[vocab, dim]`) of a layer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a place without weights.
    pub fn weight(&self) -> Result<Tensor> {
        match self.place {
            Place::Layer { base, .. } => Ok(base.dense()?.weight),
            _ => {
                let why = "it has no weights".to_owned();
                Err(Error::Unsupported { method: "an adapter by weights", site: self.name.to_owned(), why })
            }
        }
    }

    /// Vocabulary and width of an embedding, if this is one.
    pub fn embedding(&self) -> Option<(i64, i64)> {
        match self.place {
            Place::Layer { kernel: Kernel::Embedding, shape: &[vocab, dim], .. } => Some((vocab, dim)),
            _ => None,
        }
    }

    /// Out and in of a linear layer, if this is one.
    pub fn linear(&self) -> Option<(i64, i64)> {
        match self.place {
            Place::Layer { kernel: Kernel::Linear, shape: &[out, inp], .. } => Some((out, inp)),
            _ => None,
        }
    }

    /// Out and in of a linear layer, if this is one of these.
    pub(crate) fn linear_of(&self, sites: &BTreeSet<String>) -> Option<(i64, i64)> {
        self.linear().filter(|_| sites.contains(self.name))
    }
}

/// What a constructor visited: the model's sites and parameters by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Sizes of the model.
    pub dims: Dims,
    /// Every site, in the constructor's order.
    pub sites: Vec<SiteOutline>,
    /// Every parameter of the base, in the constructor's order.
    pub params: Vec<String>,
}

impl Outline {
    /// The name that a parameter's tensor is stored under: its own, or for the weight of a tied head the other one's.
    pub fn stored_name<'s>(&'s self, param: &'s str) -> &'s str {
        let head =
            self.sites.iter().find(|s| s.tied.is_some() && param.strip_prefix(&s.name) == Some(".weight"));
        head.and_then(|s| s.tied.as_deref()).unwrap_or(param)
    }
}

/// A [`Site`] without its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteOutline {
    pub name: String,
    pub kind: SiteKind,
    /// Shape of the weight; empty where there is none.
    pub shape: Vec<i64>,
    /// The weight is stored as `[in, out]`, as GPT-2 has it; `shape` is `[out, in]` all the same.
    pub transposed: bool,
    /// Full name of the parameter whose tensor the weight is, for the head of a model with tied embeddings.
    pub tied: Option<String>,
    /// Index of the model's layer it is in, if it is in one.
    pub layer: Option<i64>,
}

impl SiteOutline {
    /// Name of a layer's weight.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }
}

/// [`Place`] without its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SiteKind {
    Linear,
    Embedding,
    Norm,
    /// A layer with a kernel of the model's own.
    Own,
    Block(Role),
    Attention,
}

impl Display for SiteKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SiteKind::Linear => "a linear layer",
            SiteKind::Embedding => "an embedding",
            SiteKind::Norm => "a norm",
            SiteKind::Own => "a layer with a kernel of the model's own",
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
            Place::Layer { kernel: Kernel::LayerNorm { .. } | Kernel::RmsNorm { .. }, .. } => SiteKind::Norm,
            Place::Layer { kernel: Kernel::Own(_), .. } => SiteKind::Own,
            Place::Block { role, .. } => SiteKind::Block(*role),
            Place::Attention => SiteKind::Attention,
        }
    }
}
