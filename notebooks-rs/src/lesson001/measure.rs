//! What the sections of this lesson measure, and how they say it.

use crate::layers::Layers;
use anyhow::{Context, Result};
use peft_core::{PREFIX, Params, Pass, Peft};
use tch::{Device, Kind, Tensor};

/// `max |a − b|`
pub fn max_abs(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])?)
}

/// `‖a‖`, all elements together.
pub fn norm(a: &Tensor) -> Result<f64> {
    Ok(a.f_norm()?.f_double_value(&[])?)
}

/// Standard normal numbers, drawn on the CPU whatever the device.
pub fn randn(dims: &[i64], device: Device) -> Result<Tensor> {
    Ok(Tensor::f_randn(dims, (Kind::Float, Device::Cpu))?.f_to(device)?)
}

/// The tensor `leaf` of an adapter at `site`.
pub fn at(params: &Params, site: &str, leaf: &str) -> Result<Tensor> {
    let name = format!("{PREFIX}{site}.{leaf}");
    params.find(&name).with_context(|| format!("no tensor `{name}`"))
}

/// The linear layer `name` under the adapters, without dropout.
pub fn linear(peft: &Peft<Layers>, active: &[&str], name: &str, x: &Tensor) -> Result<Tensor> {
    Ok(peft.view(active)?.linear(name)?.forward(x, Pass::eval())?)
}

/// As Python prints a tensor's shape.
pub fn torch_size(t: &Tensor) -> String {
    format!("torch.Size({:?})", t.size())
}

/// Cells of a table.
pub fn row<const N: usize>(cells: [&dyn ToString; N]) -> Vec<String> {
    cells.iter().map(|c| c.to_string()).collect()
}

/// A small number: 7.2e-7, or 0.
pub fn small(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}
