//! Small things about tensors. All of this lesson is computed in f64, as in NumPy.

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

/// Where fresh tensors are put.
#[derive(Debug, Clone, Copy)]
pub struct Source(pub Device);

impl Source {
    /// `scale · sin(a·i + b)` for i = 0, 1, .. in the order of rows: inputs that any language can write down.
    pub fn ramp(self, shape: &[i64], [a, b, scale]: [f64; 3]) -> Result<Tensor> {
        let count: i64 = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|i| scale * (a * i as f64 + b).sin()).collect();
        Ok(Tensor::f_from_slice(&values)?.f_view(shape)?.f_to(self.0)?)
    }

    /// N(0, std²), drawn on the CPU whatever the device.
    pub fn normal(self, shape: &[i64], std: f64) -> Result<Tensor> {
        Ok(Tensor::f_randn(shape, (Kind::Double, Device::Cpu))?.f_mul_scalar(std)?.f_to(self.0)?)
    }

    pub fn zeros(self, shape: &[i64]) -> Result<Tensor> {
        Ok(Tensor::f_zeros(shape, (Kind::Double, self.0))?)
    }
}

/// `[.., width]` as a matrix of rows, `[N, width]`: batch and position make no difference to a linear layer.
pub fn rows(x: &Tensor) -> Result<Tensor> {
    let width = *x.size().last().context("a tensor without dimensions")?;
    Ok(x.f_reshape([-1, width])?)
}

/// `[batch, length, heads · d]` to `[batch, heads, length, d]`.
pub fn split_heads(x: &Tensor, heads: i64) -> Result<Tensor> {
    let (batch, length, width) = x.size3()?;
    Ok(x.f_view([batch, length, heads, width / heads])?.f_transpose(1, 2)?)
}

/// The way back.
pub fn merge_heads(x: &Tensor) -> Result<Tensor> {
    let (batch, heads, length, d) = x.size4()?;
    Ok(x.f_transpose(1, 2)?.f_reshape([batch, length, heads * d])?)
}

/// `‖x‖`, of all elements.
pub fn norm(x: &Tensor) -> Result<f64> {
    Ok(x.f_to_kind(Kind::Double)?.f_norm()?.f_double_value(&[])?)
}

/// `max |x|`
pub fn largest(x: &Tensor) -> Result<f64> {
    Ok(x.f_abs()?.f_max()?.f_double_value(&[])?)
}

/// `max |found − expected| / max |expected|`; where all of that is zero, the difference itself.
pub fn relative(found: &Tensor, expected: &Tensor) -> Result<f64> {
    let (found, expected) = (found.f_to_kind(Kind::Double)?, expected.f_to_kind(Kind::Double)?);
    let (error, scale) = (largest(&found.f_sub(&expected)?)?, largest(&expected)?);
    Ok(if scale > 0.0 { error / scale } else { error })
}

/// `Σ x ⊙ y`
pub fn dot(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    Ok(x.f_mul(y)?.f_sum(None::<Kind>)?)
}

/// All elements, in the order of rows.
pub fn values(x: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f64>::try_from(x.f_reshape([-1])?.f_to_kind(Kind::Double)?.f_to(Device::Cpu)?)?)
}

/// A shape as Python prints it: `(2, 16, 256)`.
pub fn shape(x: &Tensor) -> String {
    match x.size().as_slice() {
        [one] => format!("({one},)"),
        sizes => format!("({})", sizes.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")),
    }
}
