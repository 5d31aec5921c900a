//! Rotary positions. Su et al. 2021, <https://arxiv.org/abs/2104.09864>: dimension i and i + d/2 of a head are turned by
//! `position · θ^(−2i/d)`; and the changes of these frequencies that longer contexts are trained with.

use super::fields::Fields;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

/// Which frequencies the positions are turned by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    pub kind: RopeType,
}

/// `rope_type` of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeType {
    /// `θ^(−2i/d)`.
    Default,
    /// All frequencies divided by `factor`. Chen et al. 2023, <https://arxiv.org/abs/2306.15595>.
    Linear { factor: f64 },
    /// Llama 3.1's: wavelengths above `original / low` are divided by `factor`, those below `original / high` stay, and
    /// between the two it goes over linearly.
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
}

/// What a rope dictionary of a type that is here may say.
const KNOWN: &[&str] = &[
    "rope_theta",
    "rope_type",
    "type",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
];

impl RopeConfig {
    /// From `rope_parameters` (transformers 5), or `rope_scaling` and `rope_theta` (4).
    pub(super) fn read(f: &Fields<'_>) -> Result<Self> {
        f.only("partial_rotary_factor", 1.0)?;
        let mut field = "rope_scaling";
        let mut json = f.get::<Map<String, Value>>(field)?.filter(|rope| !rope.is_empty());
        if json.is_none() {
            field = "rope_parameters";
            json = f.get(field)?;
        }
        let json = Value::Object(json.unwrap_or_default());
        let unknown = json.as_object().and_then(|rope| rope.keys().find(|k| !KNOWN.contains(&k.as_str())));
        if let Some(key) = unknown {
            return Err(f.wrong(field, format!("`{key}` is not supported")));
        }
        let place = f.within(field);
        let rope = Fields::new(&json, &place);
        rope.only("partial_rotary_factor", 1.0)?;
        let kind = match rope.get("rope_type")? {
            Some(kind) => kind,
            None => rope.or("type", "default".to_owned())?,
        };
        let factor = |field: &str| rope.above_zero(field, rope.need(field)?);
        let kind = match kind.as_str() {
            "default" => RopeType::Default,
            "linear" => RopeType::Linear { factor: factor("factor")? },
            "llama3" => RopeType::Llama3 {
                factor: factor("factor")?,
                low: factor("low_freq_factor")?,
                high: factor("high_freq_factor")?,
                original: {
                    let field = "original_max_position_embeddings";
                    let length = match (f.get(field)?, rope.get(field)?) {
                        (Some(length), _) | (None, Some(length)) => length,
                        (None, None) => f.need("max_position_embeddings")?,
                    };
                    rope.above_zero(field, length)?
                },
            },
            other => {
                let message = format!("`{other}` is not supported, only default, linear and llama3 are");
                return Err(rope.wrong("rope_type", message));
            }
        };
        let theta = match rope.get("rope_theta")? {
            Some(theta) => theta,
            None => f.or("rope_theta", 10_000.0)?,
        };
        Ok(Self { theta: f.above_zero("rope_theta", theta)?, kind })
    }

    /// `[d/2]`, in f32 as transformers computes it.
    fn frequencies(&self, head_dim: i64, device: Device) -> Result<Tensor> {
        let even = Tensor::f_arange_start_step(0, head_dim, 2, (Kind::Float, device))?;
        let theta = Tensor::f_full([1], self.theta, (Kind::Float, device))?;
        let plain = theta.f_pow(&even.f_div_scalar(head_dim as f64)?)?.f_reciprocal()?;
        match self.kind {
            RopeType::Default => Ok(plain),
            RopeType::Linear { factor } => Ok(plain.f_div_scalar(factor)?),
            RopeType::Llama3 { factor, low, high, original } => {
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
        }
    }

    /// For `positions` `[batch or 1, t]`.
    pub(super) fn at(&self, positions: &Tensor, head_dim: i64, kind: Kind) -> Result<Rope> {
        let frequencies = self.frequencies(head_dim, positions.device())?;
        let angles = positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(&frequencies)?;
        let angles = Tensor::f_cat(&[&angles, &angles], -1)?.f_unsqueeze(1)?;
        Ok(Rope { cos: angles.f_cos()?.f_to_kind(kind)?, sin: angles.f_sin()?.f_to_kind(kind)? })
    }
}

/// Cosines and sines of a call's positions, `[batch or 1, 1, t, d]`.
#[derive(Debug)]
pub(super) struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// `x` `[batch, heads, t, d]`, turned.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let halves = x.f_chunk(2, -1)?;
        let [first, second] = halves.as_slice() else {
            return Err(Error::Input("rotary positions need heads of an even size".into()));
        };
        let turned = Tensor::f_cat(&[&second.f_neg()?, first], -1)?;
        Ok(x.f_mul(&self.cos)?.f_add(&turned.f_mul(&self.sin)?)?)
    }
}
