//! LoRA-FA: A is frozen, and B's gradient is the one that comes closest to the full matrix's. Zhang et al. 2023,
//! <https://arxiv.org/abs/2308.03303>; the projection is LoRA-Pro's, Wang et al. 2024,
//! <https://arxiv.org/abs/2407.18242>, as PEFT has it (`create_lorafa_optimizer`):
//!
//! `g ← s⁻² · g (A Aᵀ + 10⁻⁸ I)⁺`

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::train::{AdamConfig, Decay};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// What LoRA-FA does to gradients before each update.
#[derive(Debug)]
pub struct LoraFa {
    pairs: Vec<Pair>,
    product: Product,
}

/// The precision of `g (A Aᵀ)⁺`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// PEFT computes it under bf16 autocast, whatever the model's dtype.
    Peft,
    F32,
}

#[derive(Debug)]
struct Pair {
    a: Tensor,
    b: Tensor,
    scaling: f64,
}

impl LoraFa {
    /// Freezes A of every pair of factors of the named adapters. It stays frozen when this is dropped.
    ///
    /// # Errors
    /// [`Error::Input`] where there is no such pair.
    pub fn new(peft: &Peft, active: &[&str], product: Product) -> Result<Self> {
        let mut pairs = Vec::new();
        for name in active {
            let (params, method) = (peft.params(name)?, peft.method(name)?);
            let tensors: BTreeMap<String, Tensor> = params.tensors();
            for pair in method.factors() {
                let (Some(a), Some(b)) = (tensors.get(&pair.a), tensors.get(&pair.b)) else { continue };
                let _ = a.f_set_requires_grad(false)?;
                pairs.push(Pair { a: a.shallow_clone(), b: b.shallow_clone(), scaling: pair.scaling });
            }
        }
        if pairs.is_empty() {
            return Err(Error::Input("LoRA-FA: the adapters have no low-rank factors".into()));
        }
        Ok(Self { pairs, product })
    }

    /// The constants that go with it: PEFT's.
    pub fn adam(weight_decay: f64) -> AdamConfig {
        AdamConfig { eps: 1e-6, weight_decay, decay: Decay::After, ..AdamConfig::default() }
    }

    /// Projects the gradients.
    pub(super) fn project(&self) -> Result<()> {
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
