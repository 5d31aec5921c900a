//! What is done to the tensors of several adapters, element by element.

use crate::check;
use crate::error::Result;
use crate::peft::combine::NAME;
use tch::{Kind, Tensor};

/// How tensors of several adapters become one. `density` is the share of values that is kept, in (0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arithmetic {
    /// `Σ wᵢ Tᵢ`. Ilharco et al. 2022, <https://arxiv.org/abs/2212.04089>.
    Linear,
    /// The largest values of each, then the weighted sum.
    MagnitudePrune { density: f64 },
    /// The largest values of each; of those, the ones with the majority's sign, of which the weighted mean is taken.
    /// Yadav et al. 2023, <https://arxiv.org/abs/2306.01708>, section 3.
    Ties { density: f64, sign: MajoritySign },
    /// Values at random, divided by the density, then the weighted sum. Yu et al. 2023,
    /// <https://arxiv.org/abs/2311.03099>. Drawn from libtorch's CPU generator.
    DareLinear { density: f64 },
    /// Values at random, divided by the density, then as TIES.
    DareTies { density: f64, sign: MajoritySign },
}

/// Which sign has the majority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MajoritySign {
    /// The sign of the sum of all adapters' values.
    #[default]
    Total,
    /// The sign that most adapters' values have.
    Frequency,
}

impl Arithmetic {
    pub(super) fn check(self) -> Result<()> {
        self.density().map_or(Ok(()), |density| check::kept(NAME, "density", density))
    }

    fn density(self) -> Option<f64> {
        match self {
            Arithmetic::Linear => None,
            Arithmetic::MagnitudePrune { density }
            | Arithmetic::Ties { density, .. }
            | Arithmetic::DareLinear { density }
            | Arithmetic::DareTies { density, .. } => Some(density),
        }
    }

    /// Of tensors of one shape with their weights.
    pub(super) fn of(self, parts: &[(f64, Tensor)]) -> Result<Tensor> {
        let pruned = parts.iter().map(|(_, t)| match self {
            Arithmetic::Linear => Ok(t.shallow_clone()),
            Arithmetic::MagnitudePrune { density } | Arithmetic::Ties { density, .. } => largest(t, density),
            Arithmetic::DareLinear { density } | Arithmetic::DareTies { density, .. } => random(t, density),
        });
        let stack = Tensor::f_stack(&pruned.collect::<Result<Vec<_>>>()?, 0)?;
        let weights: Vec<f64> = parts.iter().map(|(w, _)| *w).collect();
        let mut shape = vec![1i64; stack.dim()];
        if let Some(first) = shape.first_mut() {
            *first = -1;
        }
        let weights = Tensor::f_from_slice(&weights)?.f_to_kind(stack.kind())?.f_to(stack.device())?;
        let weighted = stack.f_mul(&weights.f_view(shape.as_slice())?)?;
        match self {
            Arithmetic::Ties { sign, .. } | Arithmetic::DareTies { sign, .. } => {
                let agrees = sign.agrees(&stack)?.f_to_kind(stack.kind())?;
                let count = sum(&agrees)?.f_clamp_min(1.0)?;
                Ok(sum(&weighted.f_mul(&agrees)?)?.f_div(&count)?)
            }
            _ => sum(&weighted),
        }
    }
}

impl MajoritySign {
    /// Which values of the stack have the majority's sign; a majority of 0 counts as positive.
    fn agrees(self, stack: &Tensor) -> Result<Tensor> {
        let signs = stack.f_sign()?;
        let votes = match self {
            MajoritySign::Total => sum(stack)?,
            MajoritySign::Frequency => sum(&signs)?,
        };
        let majority = votes.f_ge(0.0)?.f_to_kind(stack.kind())?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?;
        Ok(signs.f_eq_tensor(&majority)?)
    }
}

fn sum(stack: &Tensor) -> Result<Tensor> {
    Ok(stack.f_sum_dim_intlist(0, false, None::<Kind>)?)
}

/// The `density · n` values that are largest in size, the others 0.
fn largest(t: &Tensor, density: f64) -> Result<Tensor> {
    if density >= 1.0 {
        return Ok(t.shallow_clone());
    }
    let kept = (density * t.numel() as f64) as i64;
    let (_, index) = t.f_abs()?.f_flatten(0, -1)?.f_topk(kept, 0, true, true)?;
    let mask = t.f_zeros_like()?.f_flatten(0, -1)?.f_index_fill(0, &index, 1.0)?;
    Ok(t.f_mul(&mask.f_view_as(t)?)?)
}

/// Each value with probability `density`, divided by it.
fn random(t: &Tensor, density: f64) -> Result<Tensor> {
    if density >= 1.0 {
        return Ok(t.shallow_clone());
    }
    // On the CPU, whose generator everything is drawn from.
    let probabilities = Tensor::f_full(t.size(), density, (t.kind(), tch::Device::Cpu))?;
    let mask = probabilities.f_bernoulli()?.f_to(t.device())?;
    Ok(t.f_mul(&mask)?.f_div_scalar(density)?)
}
