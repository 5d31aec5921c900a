//! Low-rank changes of weights, whichever method they come from.

use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// A change of a layer's weights: `ΔW = scale · B A`, and `Δb`. Of an embedding, `ΔWᵀ = scale · B A`.
#[derive(Debug)]
pub struct LowRank {
    /// `[r, in]`; of an embedding `[r, vocab]`.
    pub a: Tensor,
    /// `[out, r]`; of an embedding `[dim, r]`.
    pub b: Tensor,
    pub scale: f64,
    /// Added to the layer's bias, `[out]`; it is not scaled any more.
    pub bias: Option<Tensor>,
}

impl LowRank {
    /// The rank r of the product: A has r rows, and B has r columns.
    pub fn rank(&self) -> Result<i64> {
        Ok(self.a.size2()?.0)
    }

    /// The change of the bias, 0 where there is none: `[out]`.
    pub(crate) fn bias_or_zeros(&self) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => Ok(bias.shallow_clone()),
            None => Ok(self.b.f_new_zeros([self.b.size2()?.0], (self.b.kind(), self.b.device()))?),
        }
    }

    /// `scale · B A`, `[out, in]`.
    pub fn delta(&self) -> Result<Tensor> {
        Ok(self.b.f_matmul(&self.a)?.f_mul_scalar(self.scale)?)
    }

    /// `Σ wᵢ ΔWᵢ` without a loss: the ranks add up.
    pub fn sum(parts: &[(f64, &LowRank)]) -> Result<LowRank> {
        let scaled = parts.iter().map(|(w, p)| p.a.f_mul_scalar(w * p.scale));
        let a = Tensor::f_cat(&scaled.collect::<std::result::Result<Vec<_>, _>>()?, 0)?;
        let b = Tensor::f_cat(&parts.iter().map(|(_, p)| &p.b).collect::<Vec<_>>(), 1)?;
        Ok(LowRank { a, b, scale: 1.0, bias: Self::sum_of_biases(parts)? })
    }

    /// `Σ wᵢ Δbᵢ`
    pub(crate) fn sum_of_biases(parts: &[(f64, &LowRank)]) -> Result<Option<Tensor>> {
        parts.iter().try_fold(None, |sum: Option<Tensor>, (w, part)| {
            plus(sum, part.bias.as_ref().map(|bias| bias.f_mul_scalar(*w)).transpose()?)
        })
    }

    /// The same with rows and columns of zeros, up to `rank`.
    pub fn padded(self, rank: i64) -> Result<LowRank> {
        let more = rank.saturating_sub(self.rank()?);
        if more < 0 {
            return Err(Error::Input(format!("a change of rank {} cannot have rank {rank}", self.rank()?)));
        }
        let (a, b) = (self.a.f_constant_pad_nd([0, 0, 0, more])?, self.b.f_constant_pad_nd([0, more])?);
        Ok(LowRank { a, b, ..self })
    }
}

/// The sum of what there is.
pub(crate) fn plus(sum: Option<Tensor>, term: Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (sum, term) {
        (Some(sum), Some(term)) => Some(sum.f_add(&term)?),
        (sum, term) => sum.or(term),
    })
}

/// `U S Vᵀ` in f64: U `[out, k]`, S `[k]`, Vᵀ `[k, in]`.
#[derive(Debug)]
pub(crate) struct Svd {
    u: Tensor,
    s: Tensor,
    vh: Tensor,
}

impl Svd {
    /// Of a matrix `[out, in]`.
    pub fn of(matrix: &Tensor) -> Result<Self> {
        let (u, s, v) = matrix.f_to_kind(Kind::Double)?.f_svd(true, true)?;
        Ok(Self { u, s, vh: v.f_tr()? })
    }

    /// Of a product of thin matrices, which is never formed: with `B = Q R` and `Aᵀ = P T`, of `R Tᵀ`.
    pub fn of_product(change: &LowRank) -> Result<Self> {
        let thin = |t: &Tensor| Tensor::f_linalg_qr(&t.f_to_kind(Kind::Double)?, "reduced");
        let ((q, r), (p, t)) = (thin(&change.b)?, thin(&change.a.f_tr()?)?);
        let core = Self::of(&r.f_matmul(&t.f_tr()?)?.f_mul_scalar(change.scale)?)?;
        Ok(Self { u: q.f_matmul(&core.u)?, s: core.s, vh: core.vh.f_matmul(&p.f_tr()?)? })
    }

    /// `‖ΔW‖²`
    pub fn energy(&self) -> Result<f64> {
        Ok(self.s.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?)
    }

    /// The closest change of that rank, `B = U S` and `A = Vᵀ`, and its share of the energy.
    pub fn truncated(&self, rank: i64) -> Result<(LowRank, f64)> {
        let k = rank.min(self.s.size1()?);
        let s = self.s.f_narrow(0, 0, k)?;
        let kept = s.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        let energy = self.energy()?;
        let b = self.u.f_narrow(1, 0, k)?.f_mul(&s)?.f_to_kind(Kind::Float)?;
        let a = self.vh.f_narrow(0, 0, k)?.f_to_kind(Kind::Float)?;
        let change = LowRank { a, b, scale: 1.0, bias: None }.padded(rank)?;
        Ok((change, if energy > 0.0 { kept / energy } else { 1.0 }))
    }
}
