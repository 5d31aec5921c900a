//! What merging into a 4-bit weight costs.

use crate::error::Result;
use crate::quant::Nf4;
use std::fmt;
use tch::{Kind, Tensor};

/// What it cost to fold adapters into a 4-bit weight and quantise it again.
#[derive(Debug, Clone, PartialEq)]
pub struct Requantised {
    /// The weight's full name.
    pub name: String,
    /// How far the weight W' that was quantised is from the one that it should be, W: `‖W' − W‖ / ‖W‖`.
    pub error: f64,
    /// The same distance `‖W' − W‖` over the norm of the adapters' change: beyond 1, rounding moved the weight further than
    /// the adapters did.
    pub of_change: f64,
}

impl fmt::Display for Requantised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [error, of_change] = [self.error, self.of_change].map(|share| 100.0 * share);
        write!(f, "lossy: `{}` was quantised again, error {error:.2} % ", self.name)?;
        write!(f, "of the weight and {of_change:.0} % of its change")
    }
}

impl Requantised {
    /// Quantises `folded` `[out, in]` as `before`, whose dense form is `base`, is.
    pub(crate) fn new(name: &str, before: &Nf4, base: &Tensor, folded: &Tensor) -> Result<(Nf4, Self)> {
        let after = Nf4::quantise(name, folded, &before.config())?;
        let norm = |t: &Tensor| -> Result<f64> { Ok(t.f_norm()?.f_double_value(&[])?) };
        let wide = |t: &Tensor| t.f_to_kind(Kind::Float);
        let folded = wide(folded)?;
        let lost = norm(&wide(&after.dequantise()?)?.f_sub(&folded)?)?;
        let of_change = lost / norm(&folded.f_sub(&wide(base)?)?)?;
        let error = lost / norm(&folded)?.max(f64::MIN_POSITIVE);
        Ok((after, Self { name: name.to_owned(), error, of_change }))
    }
}
