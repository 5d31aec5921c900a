//! The frequencies of each type, step by step and in f32 as transformers computes them.

use crate::error::Result;
use crate::models::rope::{RopeConfig, RopeType};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

impl RopeConfig {
    /// `[d/2]`, for a call with these `positions`.
    pub(super) fn frequencies(&self, positions: &Tensor, head_dim: i64) -> Result<Tensor> {
        let device = positions.device();
        let plain = |theta: f64| powers(theta, head_dim, device)?.f_reciprocal().map_err(Into::into);
        match self.kind {
            RopeType::Default => plain(self.theta),
            RopeType::Linear { factor } => Ok(plain(self.theta)?.f_div_scalar(factor)?),
            RopeType::Llama3 { factor, low, high, original } => {
                let plain = plain(self.theta)?;
                let wavelength = plain.f_reciprocal()?.f_mul_scalar(2.0 * PI)?;
                let slow = plain.f_div_scalar(factor)?;
                // 0 at the longest of the wavelengths between, 1 at the shortest.
                let turns = wavelength.f_reciprocal()?.f_mul_scalar(original)?;
                let smooth = turns.f_sub_scalar(low)?.f_div_scalar(high - low)?;
                let between = slow.f_lerp_tensor(&plain, &smooth)?;
                let fast = wavelength.f_lt(original / high)?;
                let rest = slow.f_where_self(&wavelength.f_gt(original / low)?, &between)?;
                Ok(plain.f_where_self(&fast, &rest)?)
            }
            RopeType::Dynamic { factor, original } => {
                let length = positions.f_max()?.f_int64_value(&[])?.saturating_add(1) as f64;
                if length <= original {
                    return plain(self.theta);
                }
                let stretch = (factor as f32 * length as f32) / original as f32 - (factor - 1.0) as f32;
                let d = head_dim as f64;
                plain(f64::from(stretch.powf((d / (d - 2.0)) as f32) * self.theta as f32))
            }
            RopeType::Yarn { factor, original, fast, slow, truncate, .. } => {
                let powers = powers(self.theta, head_dim, device)?;
                let (kept, divided) = (powers.f_reciprocal()?, powers.f_mul_scalar(factor)?.f_reciprocal()?);
                let (low, high) = yarn_range(self.theta, head_dim as f64, original, [fast, slow], truncate);
                let index =
                    Tensor::f_arange(head_dim.checked_div(2).unwrap_or_default(), (Kind::Float, device))?;
                let ramp = index.f_sub_scalar(low)?.f_div_scalar(high - low)?.f_clamp(0.0, 1.0)?;
                let keep = ramp.f_neg()?.f_add_scalar(1.0)?;
                let divide = keep.f_neg()?.f_add_scalar(1.0)?;
                Ok(divided.f_mul(&divide)?.f_add(&kept.f_mul(&keep)?)?)
            }
        }
    }
}

/// `θ^(2i/d)`, `[d/2]`.
fn powers(theta: f64, head_dim: i64, device: Device) -> Result<Tensor> {
    let even = Tensor::f_arange_start_step(0, head_dim, 2, (Kind::Float, device))?;
    let theta = Tensor::f_full([1], theta, (Kind::Float, device))?;
    Ok(theta.f_pow(&even.f_div_scalar(head_dim as f64)?)?)
}

/// The pairs of dimensions between which YaRN goes over: those that turn `fast` and `slow` times in the original
/// positions.
fn yarn_range(theta: f64, d: f64, original: f64, turns: [f64; 2], truncate: bool) -> (f64, f64) {
    let [low, high] = turns.map(|turns| d * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln()));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(d - 1.0));
    // As transformers does, so that nothing is divided by 0.
    (low, if low == high { high + 0.001 } else { high })
}
