//! What every class of this lesson has: parameters, a forward pass, a backward pass, a count.

use anyhow::{Context, Result};
use std::fmt::Debug;
use tch::Tensor;

/// A trained tensor and the gradient of the loss by it.
#[derive(Debug)]
pub struct Parameter {
    pub value: Tensor,
    /// The sum over all backward passes since [`Parameter::clear`].
    pub grad: Tensor,
}

impl Parameter {
    pub fn new(value: Tensor) -> Result<Self> {
        Ok(Self { grad: value.f_zeros_like()?, value })
    }

    /// `grad += more`. Adding is right: a parameter that is used twice, or in two batches, has the sum of both gradients.
    pub fn accumulate(&self, more: &Tensor) -> Result<()> {
        let _ = self.grad.shallow_clone().f_add_(more)?;
        Ok(())
    }

    /// `grad = 0`
    pub fn clear(&self) -> Result<()> {
        let _ = self.grad.shallow_clone().f_zero_()?;
        Ok(())
    }

    /// `value += change`
    pub fn shift(&self, change: &Tensor) -> Result<()> {
        let _ = self.value.shallow_clone().f_add_(change)?;
        Ok(())
    }

    pub fn count(&self) -> i64 {
        self.value.numel() as i64
    }
}

/// A differentiable function with parameters. Its derivative is written by hand.
pub trait Module: Debug {
    /// The output of `x`; keeps what the backward pass needs.
    fn forward(&mut self, x: &Tensor) -> Result<Tensor>;

    /// Of the gradient of the loss by the output, the gradient by the input. Gradients by parameters are accumulated.
    fn backward(&mut self, grad: &Tensor) -> Result<Tensor>;

    /// What is trained, by name.
    fn parameters(&self) -> Vec<(String, &Parameter)> {
        Vec::new()
    }

    /// How many numbers are trained.
    fn count(&self) -> i64 {
        self.parameters().iter().map(|(_, p)| p.count()).sum()
    }

    /// Forgets all gradients.
    fn clear(&self) -> Result<()> {
        self.parameters().iter().try_for_each(|(_, p)| p.clear())
    }
}

/// The parameters of a part, with the part's name before their own: `q.A`.
pub fn within<'a>(part: &str, parameters: Vec<(String, &'a Parameter)>) -> Vec<(String, &'a Parameter)> {
    parameters.into_iter().map(|(name, p)| (format!("{part}.{name}"), p)).collect()
}

/// What the forward pass kept.
pub fn kept<T>(cache: &Option<T>) -> Result<&T> {
    cache.as_ref().context("the backward pass comes after a forward pass")
}

/// `y = x Wᵀ + b` with frozen weights: W `[out, in]`, b `[out]`.
///
/// Backward: `dX = G W`, `[N, out] [out, in]`. There is no dW and no db: nobody would use them.
#[derive(Debug)]
pub struct Frozen {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

impl Module for Frozen {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, self.bias.as_ref())?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        Ok(grad.f_matmul(&self.weight)?)
    }
}
