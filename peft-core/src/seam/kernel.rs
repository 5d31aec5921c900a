//! What a layer computes, from weights that are stored in one of several ways.

use crate::error::Result;
use crate::quant::Nf4;
use std::fmt::{Debug, Formatter};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Dense weights of one layer; the shapes are the [`Kernel`]'s.
#[derive(Debug)]
pub struct Weights {
    /// `W` of the kernel's formula.
    pub weight: Tensor,
    /// `b` of it, where the layer has one.
    pub bias: Option<Tensor>,
}

impl Weights {
    /// `W + delta`, in W's dtype.
    pub fn plus(self, delta: &Tensor) -> Result<Self> {
        let weight = self.weight.f_add(delta)?.f_to_kind(self.weight.kind())?;
        Ok(Self { weight, ..self })
    }

    /// Dtypes of the weight and of the bias; that of the weight, where there is none.
    pub(crate) fn kinds(&self) -> [Kind; 2] {
        [self.weight.kind(), self.bias.as_ref().map_or(self.weight.kind(), Tensor::kind)]
    }

    /// The same in other dtypes; handles, where they have them already.
    pub(crate) fn in_kinds(&self, [weight, bias]: [Kind; 2]) -> Result<Self> {
        let bias = self.bias.as_ref().map(|b| b.f_to_kind(bias)).transpose()?;
        Ok(Self { weight: self.weight.f_to_kind(weight)?, bias })
    }
}

/// f32 for what is narrower.
pub(crate) fn wide(kind: Kind) -> Kind {
    if matches!(kind, Kind::Half | Kind::BFloat16) { Kind::Float } else { kind }
}

/// What a layer computes from its input and its weights. It holds no tensors, and a clone is cheap.
#[derive(Debug, Clone, PartialEq)]
pub enum Kernel {
    /// `y = x Wᵀ + b`; W `[out, in]`, b `[out]`.
    Linear,
    /// `y = W[ids]`; W `[vocab, dim]`.
    Embedding,
    /// `y = (x − mean) / √(var + eps) ⊙ W + b`; W and b `[dim]`.
    LayerNorm { eps: f64 },
    /// `y = x / √(mean(x²) + eps) ⊙ W`; W `[dim]`.
    RmsNorm { eps: f64 },
    /// A function that the model's author brought; see [`Scope::layer_of`](crate::build::Scope::layer_of).
    Own(OwnKernel),
}

/// A kernel that a model's author brought: a function of a layer's input and its weights.
#[derive(Clone)]
pub struct OwnKernel(Arc<Box<Function>>); // boxed, so that a kernel is two words whichever it is

type Function = dyn Fn(&Tensor, &Weights) -> Result<Tensor> + Send + Sync;

impl OwnKernel {
    pub(crate) fn new(
        function: impl Fn(&Tensor, &Weights) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Box::new(function)))
    }
}

impl Debug for OwnKernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnKernel")
    }
}

/// Clones of one are equal; two that were brought are not, whatever they compute.
impl PartialEq for OwnKernel {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Kernel {
    /// Whether the weight is a matrix, `[out, in]` or `[vocab, dim]`, so that a change of it may be a product of two.
    pub(crate) fn has_matrix(&self) -> bool {
        matches!(self, Kernel::Linear | Kernel::Embedding)
    }

    pub(crate) fn apply(&self, x: &Tensor, w: &Weights) -> Result<Tensor> {
        Ok(match self {
            Kernel::Linear => x.f_linear(&w.weight, w.bias.as_ref())?,
            Kernel::Embedding => Tensor::f_embedding(&w.weight, x, -1, false, false)?,
            Kernel::LayerNorm { eps } => {
                x.f_layer_norm(w.weight.size(), Some(&w.weight), w.bias.as_ref(), *eps, true)?
            }
            Kernel::RmsNorm { eps } => x.f_rms_norm(w.weight.size(), Some(&w.weight), *eps)?,
            Kernel::Own(OwnKernel(function)) => function(x, w)?,
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

    /// The bias, if there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        match self {
            Base::Dense(w) => w.bias.as_ref(),
            Base::Nf4 { bias, .. } => bias.as_ref(),
        }
    }

    pub(crate) fn apply(&self, kernel: &Kernel, x: &Tensor) -> Result<Tensor> {
        match self {
            Base::Dense(w) => kernel.apply(x, w),
            Base::Nf4 { weight, bias } => weight.linear(x, bias.as_ref()),
        }
    }
}
