//! How many directions a matrix has: singular values, energy, and how alike two subspaces are.

use anyhow::Result;
use tch::{Kind, Tensor};

/// `M = U S Vᵀ` in f64: U `[out, k]`, S descending, V `[in, k]`, k = min(out, in).
#[derive(Debug)]
pub struct Spectrum {
    u: Tensor,
    s: Tensor,
    v: Tensor,
    /// S.
    pub values: Vec<f64>,
}

impl Spectrum {
    pub fn of(matrix: &Tensor) -> Result<Self> {
        let (u, s, v) = matrix.f_to_kind(Kind::Double)?.f_svd(true, true)?;
        let values = Vec::try_from(&s)?;
        Ok(Self { u, s, v, values })
    }

    /// `Σ_{i ≤ r} σᵢ uᵢ vᵢᵀ`, `[out, in]`: by Eckart and Young the closest matrix of rank r.
    pub fn cut(&self, r: i64) -> Result<Tensor> {
        let us = self.u.f_narrow(1, 0, r)?.f_mul(&self.s.f_narrow(0, 0, r)?)?;
        Ok(us.f_mm(&self.v.f_narrow(1, 0, r)?.f_tr()?)?)
    }

    /// The share of `‖M‖²` in the first r singular values: `Σ_{i ≤ r} σᵢ² / Σ σᵢ²`.
    pub fn energy(&self, r: usize) -> f64 {
        self.square(..r.min(self.values.len())) / self.square(..)
    }

    /// `√(Σ_{i > r} σᵢ²)`: how far from M every matrix of rank r is at least.
    pub fn tail(&self, r: usize) -> f64 {
        self.square(r.min(self.values.len())..).sqrt()
    }

    fn square(&self, part: impl std::slice::SliceIndex<[f64], Output = [f64]>) -> f64 {
        self.values.get(part).unwrap_or_default().iter().map(|s| s * s).sum()
    }

    /// The smallest rank that keeps this share of the energy.
    pub fn rank_for(&self, share: f64) -> usize {
        (1..=self.values.len()).find(|r| self.energy(*r) >= share).unwrap_or(self.values.len())
    }

    /// How many singular values are below this share of the largest.
    pub fn below(&self, share: f64) -> usize {
        let largest = self.values.first().copied().unwrap_or_default();
        self.values.iter().filter(|s| **s < share * largest).count()
    }
}

/// `φ(i, j) = ‖V₁[:, :i]ᵀ V₂[:, :j]‖² / min(i, j)`, between 0 (nothing in common) and 1 (one within the other): how alike
/// the spans of the first i and j input directions of two matrices are. Row i−1, column j−1. Hu et al. 2021,
/// <https://arxiv.org/abs/2106.09685>, section 7.2. Random subspaces of d dimensions have `max(i, j)/d` on average.
pub fn similarity(first: &Spectrum, second: &Spectrum) -> Result<Vec<Vec<f64>>> {
    let sums =
        first.v.f_tr()?.f_mm(&second.v)?.f_square()?.f_cumsum(0, Kind::Double)?.f_cumsum(1, Kind::Double)?;
    let rows: Vec<Vec<f64>> = Vec::try_from(&sums)?;
    let share = |i: usize| move |(j, sum): (usize, f64)| sum / (i.min(j) + 1) as f64;
    Ok(rows
        .into_iter()
        .enumerate()
        .map(|(i, row)| row.into_iter().enumerate().map(share(i)).collect())
        .collect())
}

/// A matrix of this size and norm with nothing to it: every element from N(0, 1), scaled.
pub fn random_like(matrix: &Tensor) -> Result<Tensor> {
    let noise = Tensor::f_randn(matrix.size(), (Kind::Float, tch::Device::Cpu))?.f_to(matrix.device())?;
    Ok(noise.f_mul(&matrix.f_norm()?.f_div(&noise.f_norm()?)?)?)
}
