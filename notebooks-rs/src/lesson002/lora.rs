//! LoRA by hand: the low-rank path, and the linear layer that it is added to.

use super::module::{Frozen, Module, Parameter, kept};
use super::tensors::{Source, rows};
use anyhow::Result;
use tch::Tensor;

/// The low-rank path `Y = s · X Aᵀ Bᵀ`, `s = alpha / r`.
///
/// Forward, with N rows:
///
/// ```text
/// H = s · X Aᵀ      [N, in] [in, r]   = [N, r]     once, and kept; the scale costs least where the tensor is thin
/// Y = H Bᵀ          [N, r] [r, out]   = [N, out]
/// ```
///
/// Backward, with `G = ∂L/∂Y`, `[N, out]`. For a product `Y = H Bᵀ` the chain rule gives `∂L/∂B = Gᵀ H` and
/// `∂L/∂H = G B`; the same again for `H = s · X Aᵀ`:
///
/// ```text
/// dB = Gᵀ H         [out, N] [N, r]   = [out, r]
/// T  = s · G B      [N, out] [out, r] = [N, r]     the gradient by X Aᵀ, once, for both of the following
/// dA = Tᵀ X         [r, N] [N, in]    = [r, in]
/// dX = T A          [N, r] [r, in]    = [N, in]
/// ```
#[derive(Debug)]
pub struct LoraLayer {
    /// `[r, in]`
    pub a: Parameter,
    /// `[out, r]`
    pub b: Parameter,
    pub scaling: f64,
    /// X `[N, in]` and H `[N, r]`.
    cache: Option<(Tensor, Tensor)>,
}

impl LoraLayer {
    /// As the lesson starts it: A ~ N(0, 0.01²), B = 0, so that nothing changes at first.
    pub fn new(source: Source, [out, inp]: [i64; 2], rank: i64, alpha: f64) -> Result<Self> {
        Self::of(source.normal(&[rank, inp], 0.01)?, source.zeros(&[out, rank])?, alpha)
    }

    /// Of A `[r, in]` and B `[out, r]`.
    pub fn of(a: Tensor, b: Tensor, alpha: f64) -> Result<Self> {
        let scaling = alpha / a.size2()?.0 as f64;
        Ok(Self { a: Parameter::new(a)?, b: Parameter::new(b)?, scaling, cache: None })
    }

    /// `s · B A`, `[out, in]`.
    pub fn delta(&self) -> Result<Tensor> {
        Ok(self.b.value.f_matmul(&self.a.value)?.f_mul_scalar(self.scaling)?)
    }
}

impl Module for LoraLayer {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let h = x.f_matmul(&self.a.value.f_tr()?)?.f_mul_scalar(self.scaling)?;
        self.cache = Some((rows(x)?, rows(&h)?));
        Ok(h.f_matmul(&self.b.value.f_tr()?)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let (x, h) = kept(&self.cache)?;
        let t = grad.f_matmul(&self.b.value)?.f_mul_scalar(self.scaling)?;
        self.b.accumulate(&rows(grad)?.f_tr()?.f_matmul(h)?)?;
        self.a.accumulate(&rows(&t)?.f_tr()?.f_matmul(x)?)?;
        Ok(t.f_matmul(&self.a.value)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        vec![("A".into(), &self.a), ("B".into(), &self.b)]
    }
}

/// A frozen linear layer with a low-rank path beside it: `Y = X Wᵀ + b + s · X Aᵀ Bᵀ`.
///
/// A sum passes its gradient on to both terms: `dX = G W + s · G B A`.
#[derive(Debug)]
pub struct LoraLinear {
    pub base: Frozen,
    pub lora: LoraLayer,
}

impl LoraLinear {
    /// `W + s · B A`, `[out, in]`: the same layer, without a second path.
    pub fn merged(&self) -> Result<Tensor> {
        Ok(self.base.weight.f_add(&self.lora.delta()?)?)
    }
}

impl Module for LoraLinear {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(self.base.forward(x)?.f_add(&self.lora.forward(x)?)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        Ok(self.base.backward(grad)?.f_add(&self.lora.backward(grad)?)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        self.lora.parameters()
    }
}
