//! Rotations, and what they turn.

use crate::error::Result;
use crate::seam::{Adapter, Inner, Weights};
use tch::{Kind, Tensor};

/// Each row of upper triangles, shortened to a Frobenius norm of its Q of at most `limit`.
pub(super) fn projected(rows: &Tensor, limit: f64) -> Result<Tensor> {
    let squares = rows.f_square()?.f_sum_dim_intlist([-1i64].as_slice(), true, rows.kind())?;
    let norm = squares.f_mul_scalar(2.0)?.f_sqrt()?;
    Ok(rows.f_mul(&norm.f_reciprocal()?.f_mul_scalar(limit)?.f_clamp_max(1.0)?)?)
}

/// OFT at one linear layer.
#[derive(Debug)]
pub(super) struct Oft {
    /// `[blocks or 1, size (size − 1)/2]`
    pub weight: Tensor,
    /// Where in a flat `[size, size]` those numbers go.
    pub upper: Tensor,
    pub size: i64,
    pub limit: Option<f64>,
    /// `None` is the exact map.
    pub terms: Option<i64>,
}

impl Oft {
    /// Q, `[blocks or 1, size, size]`.
    ///
    /// PEFT projects the parameter of COFT itself, at every call. Here a call changes nothing: it projects a copy, whose
    /// gradient is the parameter's as it is there, and the parameter follows after each step of the optimizer.
    fn skew(&self) -> Result<Tensor> {
        let (rows, size) = (&self.weight, self.size);
        let rows = match self.limit {
            None => rows.shallow_clone(),
            Some(limit) => projected(&rows.f_detach()?, limit)?.f_add(&rows.f_sub(&rows.f_detach()?)?)?,
        };
        let flat =
            Tensor::f_zeros([rows.size2()?.0, size.saturating_mul(size)], (rows.kind(), rows.device()))?;
        let half = flat.f_index_copy(1, &self.upper, &rows)?.f_view([-1, size, size])?;
        Ok(half.f_sub(&half.f_transpose(1, 2)?)?)
    }

    /// R, `[blocks or 1, size, size]`.
    fn rotations(&self) -> Result<Tensor> {
        let q = self.skew()?;
        let one = Tensor::f_eye(self.size, (q.kind(), q.device()))?;
        let Some(terms) = self.terms else {
            return Ok(Tensor::f_linalg_solve(&q.f_add(&one)?, &one.f_sub(&q)?, false)?);
        };
        let twice = q.f_mul_scalar(2.0)?;
        if terms == 2 {
            return Ok(twice.f_add(&one)?);
        }
        // 2Q + 2Q² + … + Qⁿ, from the inside: Q, 2Q + Q·Q, 2Q + Q·(2Q + Q·Q) …
        let powers = terms.saturating_sub(1).max(3);
        let series = (1..powers).try_fold(q.shallow_clone(), |s, _| twice.f_baddbmm(&q, &s, 1.0, 1.0))?;
        Ok(series.f_add(&one)?)
    }

    /// `x` `[.., in]`, each of its blocks times its matrix.
    fn turned(&self, x: &Tensor, matrices: &Tensor) -> Result<Tensor> {
        let blocks = x.f_reshape([-1, x.size().last().copied().unwrap_or_default()])?;
        let blocks = blocks.f_unflatten(1, [-1, self.size])?;
        let turned = match matrices.size3()?.0 {
            1 => blocks.f_matmul(&matrices.f_get(0)?)?,
            _ => blocks.f_transpose(0, 1)?.f_bmm(matrices)?.f_transpose(0, 1)?,
        };
        Ok(turned.f_reshape(x.size())?)
    }
}

impl Adapter for Oft {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        let kind = w.weight.kind();
        let turned = self.turned(&w.weight.f_to_kind(Kind::Float)?, &self.rotations()?.f_transpose(1, 2)?)?;
        Ok(Weights { weight: turned.f_to_kind(kind)?, ..w })
    }

    /// The input is turned, and not the weights.
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let turned = self.turned(&x.f_to_kind(Kind::Float)?, &self.rotations()?)?;
        inner.forward(&turned.f_to_kind(x.kind())?)
    }
}
