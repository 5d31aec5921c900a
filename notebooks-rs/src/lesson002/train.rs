//! Training with gradients by hand.

use super::module::Module;
use super::tensors::Source;
use anyhow::{Context, Result};
use tch::{Kind, Tensor};

/// `mean (y − target)²`, and its gradient by y, `2 (y − target) / elements`.
pub fn squared_error(y: &Tensor, target: &Tensor) -> Result<(f64, Tensor)> {
    let off = y.f_sub(target)?;
    let loss = off.f_square()?.f_mean(None::<Kind>)?.f_double_value(&[])?;
    Ok((loss, off.f_mul_scalar(2.0 / off.numel() as f64)?))
}

/// The first and the last loss.
pub fn ends(losses: &[f64]) -> Result<[f64; 2]> {
    let end = |loss: Option<&f64>| loss.copied().context("no step");
    Ok([end(losses.first())?, end(losses.last())?])
}

/// Moves every parameter away from where it starts, as after some training: no B is zero any more.
pub fn shake(module: &dyn Module, source: Source, std: f64) -> Result<()> {
    module.parameters().iter().try_for_each(|(_, p)| p.shift(&source.normal(&p.value.size(), std)?))
}

/// So many steps of Adam (Kingma & Ba 2015, <https://arxiv.org/abs/1412.6980>) towards `target`; gives the loss before
/// each step and after the last.
///
/// `m ← β₁ m + (1 − β₁) g`, `v ← β₂ v + (1 − β₂) g²`, `θ ← θ − rate · m̂ / (√v̂ + ε)`, where `m̂ = m / (1 − β₁ᵗ)` and
/// `v̂ = v / (1 − β₂ᵗ)`.
pub fn fit(module: &mut dyn Module, x: &Tensor, target: &Tensor, steps: i32, rate: f64) -> Result<Vec<f64>> {
    let [beta1, beta2, epsilon] = [0.9, 0.999, 1e-8f64];
    let zeros = || -> Result<Vec<Tensor>> {
        module.parameters().iter().map(|(_, p)| Ok(p.value.f_zeros_like()?)).collect()
    };
    let (mut m, mut v) = (zeros()?, zeros()?);
    let mut losses = Vec::new();
    for t in 1..=steps {
        module.clear()?;
        let (loss, grad) = squared_error(&module.forward(x)?, target)?;
        losses.push(loss);
        let _ = module.backward(&grad)?;
        for (((_, p), m), v) in module.parameters().into_iter().zip(&mut m).zip(&mut v) {
            *m = m.f_mul_scalar(beta1)?.f_add(&p.grad.f_mul_scalar(1.0 - beta1)?)?;
            *v = v.f_mul_scalar(beta2)?.f_add(&p.grad.f_square()?.f_mul_scalar(1.0 - beta2)?)?;
            let mean = m.f_div_scalar(1.0 - beta1.powi(t))?;
            let size = v.f_div_scalar(1.0 - beta2.powi(t))?.f_sqrt()?.f_add_scalar(epsilon)?;
            p.shift(&mean.f_div(&size)?.f_mul_scalar(-rate)?)?;
        }
    }
    losses.push(squared_error(&module.forward(x)?, target)?.0);
    Ok(losses)
}
