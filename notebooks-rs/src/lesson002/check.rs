//! Are the gradients right? By hand, by libtorch's autograd, by finite differences.

use super::module::{Module, Parameter};
use super::tensors::{dot, norm, relative, shape};
use crate::measure::small;
use crate::{Mistake, Page};
use anyhow::Result;
use tch::Tensor;

/// Step of the finite differences. Their error is about h² from the curve and ε/h from rounding.
pub const STEP: f64 = 1e-5;

/// How far the gradient by one tensor is from others, relative to its largest element.
#[derive(Debug)]
pub struct Gradient {
    pub of: String,
    pub shape: String,
    pub autograd: f64,
    pub differences: f64,
}

/// The gradients of `Σ G ⊙ forward(x)` by all parameters and by x: by hand, against both others.
pub fn check(module: &mut dyn Module, x: &Tensor, grad: &Tensor) -> Result<Vec<Gradient>> {
    let x = x.f_detach_copy()?;
    module.clear()?;
    let _ = module.forward(&x)?;
    let by_x = module.backward(grad)?;
    let parameters: Vec<(String, Tensor, Tensor)> = module
        .parameters()
        .into_iter()
        .map(|(name, p)| Ok((name, p.value.shallow_clone(), p.grad.f_detach_copy()?)))
        .chain([Ok(("x".to_owned(), x.shallow_clone(), by_x))])
        .collect::<Result<_>>()?;

    let leaves: Vec<Tensor> = parameters.iter().map(|(_, value, _)| value.shallow_clone()).collect();
    for leaf in &leaves {
        let _ = leaf.f_set_requires_grad(true)?;
    }
    let loss = dot(&module.forward(&x)?, grad)?;
    let autograd = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
    for leaf in &leaves {
        let _ = leaf.f_set_requires_grad(false)?;
    }

    let mut checks = Vec::new();
    for ((of, value, hand), autograd) in parameters.into_iter().zip(autograd) {
        let differences = central(&value, STEP, || dot(&module.forward(&x)?, grad))?;
        checks.push(Gradient {
            of,
            shape: shape(&value),
            autograd: relative(&hand, &autograd)?,
            differences: relative(&hand, &differences)?,
        });
    }
    Ok(checks)
}

/// `(L(θ + h) − L(θ − h)) / 2h`, one element of θ after another.
pub fn central(value: &Tensor, h: f64, mut loss: impl FnMut() -> Result<Tensor>) -> Result<Tensor> {
    let (forth, back) = (shifted(value, h, &mut loss)?, shifted(value, -h, &mut loss)?);
    Ok(forth.f_sub(&back)?.f_div_scalar(2.0 * h)?)
}

/// `L(θ + h eᵢ)` for each element i of θ, in θ's shape.
pub fn shifted(value: &Tensor, h: f64, mut loss: impl FnMut() -> Result<Tensor>) -> Result<Tensor> {
    let flat = value.f_view([-1])?;
    let mut losses = Vec::new();
    for i in 0..flat.size1()? {
        let mut element = flat.f_narrow(0, i, 1)?;
        let before = element.f_detach_copy()?;
        let _ = element.f_add_scalar_(h)?;
        losses.push(loss()?);
        element.f_copy_(&before)?;
    }
    Ok(Tensor::f_stack(&losses, 0)?.f_view(value.size().as_slice())?)
}

/// Checks, prints the table, and gives the worst deviation from autograd.
pub fn show(page: &mut Page, about: &str, module: &mut dyn Module, x: &Tensor, grad: &Tensor) -> Result<f64> {
    let checks = check(module, x, grad)?;
    let worst = |of: fn(&Gradient) -> f64| checks.iter().map(of).fold(0.0, f64::max);
    page.fact(&format!("{about}.autograd"), worst(|g| g.autograd));
    page.fact(&format!("{about}.differences"), worst(|g| g.differences));
    let errors: Vec<_> = checks.iter().map(|g| vec![g.autograd, g.differences]).collect();
    page.fact(&format!("{about}.errors"), errors);
    let rows =
        checks.iter().map(|g| vec![g.of.clone(), g.shape.clone(), small(g.autograd), small(g.differences)]);
    page.table(
        &format!("{about}: gradients by hand, relative difference"),
        ["gradient by", "shape", "from autograd", "from finite differences"],
        rows.collect(),
    )?;
    Ok(worst(|g| g.autograd))
}

/// Two batches, a backward pass each, of x and of G: the lesson's gradient is then that of the second batch alone.
pub fn overwritten(module: &mut dyn Module, batches: [[&Tensor; 2]; 2]) -> Result<Mistake> {
    let mut norms = |batches: &[[&Tensor; 2]]| -> Result<String> {
        module.clear()?;
        for [x, grad] in batches {
            let _ = module.forward(x)?;
            let _ = module.backward(grad)?;
        }
        let one = |(name, p): (String, &Parameter)| Ok(format!("‖d{name}‖ = {:.4}", norm(&p.grad)?));
        Ok(module.parameters().into_iter().map(one).collect::<Result<Vec<_>>>()?.join(", "))
    };
    Ok(Mistake::new(
        "A second backward pass overwrites the gradients of the first, so batches cannot be accumulated",
        format!("after two batches, the second one's alone: {}", norms(&batches[1..])?),
        format!("the sum of both: {}", norms(&batches)?),
    ))
}
