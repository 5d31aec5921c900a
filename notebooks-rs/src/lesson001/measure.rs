//! What the sections of this lesson measure.

use anyhow::Result;
use tch::Tensor;

/// `max |a − b|`
pub fn max_abs(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])?)
}
