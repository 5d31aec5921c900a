//! How far two tensors are apart.

use anyhow::Result;
use tch::Tensor;

/// `max |a − b|`
pub fn max_change(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])?)
}

/// `‖a − b‖ / ‖b‖`
pub fn relative_change(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(norm(&a.f_sub(b)?)? / norm(b)?)
}

/// `‖a‖`
pub fn norm(a: &Tensor) -> Result<f64> {
    Ok(a.f_norm()?.f_double_value(&[])?)
}
