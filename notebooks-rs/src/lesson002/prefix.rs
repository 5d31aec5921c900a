//! Prefix tuning by hand.

use super::attention::SelfAttention;
use super::module::{Module, Parameter};
use super::tensors::Source;
use anyhow::{Context, Result};
use tch::Tensor;

/// Frozen self-attention layers, one after another, each behind its own prefix.
#[derive(Debug)]
pub struct Stack(pub Vec<SelfAttention>);

impl Stack {
    /// `prefix` is `[layers, 2, n, heads, d]`: a layer's keys, then its values.
    pub fn forward(&mut self, x: &Tensor, prefix: &Tensor) -> Result<Tensor> {
        let mut x = x.shallow_clone();
        for (layer, i) in self.0.iter_mut().zip(0..) {
            let own = prefix.f_get(i)?;
            x = layer.forward_behind(&x, Some([&own.f_get(0)?, &own.f_get(1)?]))?;
        }
        Ok(x)
    }

    /// The gradients by x and by the prefix: from the last layer to the first.
    pub fn backward(&mut self, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut grad = grad.shallow_clone();
        let mut prefix = Vec::new();
        for layer in self.0.iter_mut().rev() {
            let (dx, own) = layer.backward_behind(&grad)?;
            grad = dx;
            prefix.push(Tensor::f_stack(&own, 0)?);
        }
        prefix.reverse();
        Ok((grad, Tensor::f_stack(&prefix, 0)?))
    }

    /// The attention weights of a layer, `[batch, heads, length, n + length]`.
    pub fn weights(&self, layer: usize) -> Result<&Tensor> {
        self.0.get(layer).context("no such layer")?.core.weights()
    }
}

/// Trained keys and values before those of the words, in every layer: `softmax(Q [Pₖ; K]ᵀ/√d) [Pᵥ; V]`.
///
/// Backward: the attention's own derivative gives `d[Pₖ; K]` and `d[Pᵥ; V]`
/// ([`Core`](super::attention::Core)). Its first n rows, summed over the batch, are the prefix's; the others go on to the
/// projections of the words.
#[derive(Debug)]
pub struct PrefixTuning {
    /// `[layers, 2, n, heads, d]`
    pub prefix: Parameter,
    pub layers: Stack,
}

impl PrefixTuning {
    /// As the lesson starts it: N(0, 0.01²), for heads of the given number and width.
    pub fn new(
        source: Source,
        layers: Vec<SelfAttention>,
        length: i64,
        [heads, d]: [i64; 2],
    ) -> Result<Self> {
        let shape = [layers.len() as i64, 2, length, heads, d];
        Self::of(source.normal(&shape, 0.01)?, layers)
    }

    /// Of a prefix `[layers, 2, n, heads, d]`.
    pub fn of(prefix: Tensor, layers: Vec<SelfAttention>) -> Result<Self> {
        Ok(Self { prefix: Parameter::new(prefix)?, layers: Stack(layers) })
    }
}

impl Module for PrefixTuning {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        self.layers.forward(x, &self.prefix.value)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let (dx, prefix) = self.layers.backward(grad)?;
        self.prefix.accumulate(&prefix)?;
        Ok(dx)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        vec![("prefix".into(), &self.prefix)]
    }
}
