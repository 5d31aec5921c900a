//! LoRA-FA: A is frozen, and B's gradient is the one that comes closest to the full matrix's. Zhang et al. 2023,
//! <https://arxiv.org/abs/2308.03303>; the projection is LoRA-Pro's, Wang et al. 2024,
//! <https://arxiv.org/abs/2407.18242>, as PEFT has it (`create_lorafa_optimizer`):
//!
//! `g ← s⁻² · g (A Aᵀ + 10⁻⁸ I)⁺`

use crate::error::{Error, Result};
use crate::peft::Adapted;
use crate::train::{AdamConfig, Decay};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// LoRA-FA: A of every LoRA is frozen, so that its layer's input need not be kept for the gradients, and B's gradient `g`
/// becomes `s⁻² · g (A Aᵀ + 10⁻⁸ I)⁺` before AdamW uses it. The default is PEFT's `create_lorafa_optimizer`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraFa {
    /// The constants of AdamW; by default ε is 10⁻⁶, and weights decay after the step, by 0.
    pub adam: AdamConfig,
    /// The precision of the product with B's gradient.
    pub product: Product,
}

/// The precision of `g (A Aᵀ + 10⁻⁸ I)⁺` in LoRA-FA. It is no matter of [`Numerics`](crate::seam::Numerics): the two differ by
/// a percent, and not by rounding at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Product {
    /// In bfloat16, as PEFT computes it whatever the model's dtype.
    #[default]
    Peft,
    /// In the dtype of the gradient.
    F32,
}

impl Default for LoraFa {
    fn default() -> Self {
        let adam = AdamConfig { eps: 1e-6, weight_decay: 0.0, decay: Decay::After, ..AdamConfig::default() };
        Self { adam, product: Product::default() }
    }
}

/// What LoRA-FA does to the gradients of some adapters.
#[derive(Debug)]
pub(super) struct Projection {
    pairs: Vec<Pair>,
    product: Product,
}

#[derive(Debug)]
struct Pair {
    a: Tensor,
    b: Tensor,
    scaling: f64,
}

impl Projection {
    /// Finds the pairs of factors of the adapters, and freezes A of each.
    ///
    /// # Errors
    /// [`Error::Input`] where there is no such pair.
    pub fn new(product: Product, adapters: &[Arc<Adapted>]) -> Result<Self> {
        let mut pairs = Vec::new();
        for adapted in adapters {
            let tensors = adapted.params.tensors();
            let mut factors = adapted.resolved.method.factors();
            factors.retain(|pair| tensors.contains_key(&pair.a) && tensors.contains_key(&pair.b));
            adapted.train(|key| factors.iter().all(|pair| pair.a != key))?;
            for pair in factors {
                let (Some(a), Some(b)) = (tensors.get(&pair.a), tensors.get(&pair.b)) else { continue };
                pairs.push(Pair { a: a.shallow_clone(), b: b.shallow_clone(), scaling: pair.scaling });
            }
        }
        if pairs.is_empty() {
            return Err(Error::Input("LoRA-FA: the adapters have no low-rank factors".into()));
        }
        Ok(Self { pairs, product })
    }

    /// Projects the gradients there are.
    pub fn apply(&self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for Pair { a, b, scaling } in &self.pairs {
            let mut grad = b.f_grad()?;
            if !grad.defined() {
                continue;
            }
            let r = a.size2()?.0;
            let ridge = Tensor::f_eye(r, (a.kind(), a.device()))?.f_mul_scalar(1e-8)?;
            let inverse =
                a.f_mm(&a.f_tr()?)?.f_add(&ridge)?.f_linalg_pinv_atol_rtol_float(None, None, false)?;
            let kind = if self.product == Product::Peft { Kind::BFloat16 } else { grad.kind() };
            let projected = grad.f_to_kind(kind)?.f_mm(&inverse.f_to_kind(kind)?)?;
            grad.f_copy_(&projected.f_mul_scalar(scaling.powi(-2))?.f_to_kind(grad.kind())?)?;
        }
        Ok(())
    }
}
