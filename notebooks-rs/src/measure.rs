//! What the lessons measure of tensors, and how they say it.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// `max |a − b|`
pub fn max_abs(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])?)
}

/// `‖a‖`, of all elements.
pub fn norm(a: &Tensor) -> Result<f64> {
    Ok(a.f_norm()?.f_double_value(&[])?)
}

/// `‖a − b‖ / ‖b‖`
pub fn relative_change(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(norm(&a.f_sub(b)?)? / norm(b)?)
}

/// Standard normal numbers, drawn on the CPU whatever the device.
pub fn randn(dims: &[i64], device: Device) -> Result<Tensor> {
    Ok(Tensor::f_randn(dims, (Kind::Float, Device::Cpu))?.f_to(device)?)
}

/// As Python prints a tensor's shape.
pub fn torch_size(t: &Tensor) -> String {
    format!("torch.Size({:?})", t.size())
}

/// Cells of a table.
pub fn row<const N: usize>(cells: [&dyn ToString; N]) -> Vec<String> {
    cells.iter().map(|c| c.to_string()).collect()
}

/// A small number in short: `7.2e-7`, or `0`.
pub fn small(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}
