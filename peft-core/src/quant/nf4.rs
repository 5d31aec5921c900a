//! One weight in the 4-bit format NF4. Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>, sections 2 and 3.
//!
//! Row by row, in blocks of 64: `absmax = max |w|`, `code = the nearest of 16 values to w / absmax`, two codes a byte;
//! `W ≈ map[code] · absmax`. The 16 values are quantiles of the normal distribution. With double quantisation, absmax is a
//! byte too: `nested_map[byte] · nested_absmax + offset` in blocks of 256. That is 4.5 bits a value, or 4.127.

use crate::error::{Error, Result};
use crate::quant::Nf4Config;
use peft_sys::nf4::{self, Path};
use tch::{Device, Kind, Tensor};

/// Values a block.
pub(crate) const BLOCK: i64 = 64;
/// Scales a block of double quantisation.
pub(crate) const NESTED_BLOCK: i64 = 256;

/// Appendix E of the paper, as bitsandbytes has it.
const CODE_BOOK: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A frozen weight `[out, in]` in the 4-bit format NF4: a code a value, one of 16 numbers, and a scale a block of 64.
#[derive(Debug)]
pub struct Nf4 {
    /// uint8 `[⌈n/2⌉, 1]`.
    pub(super) codes: Tensor,
    /// f32 `[16]`.
    pub(super) map: Tensor,
    /// f32 `[⌈n/64⌉]`, or uint8 if there is `nested`.
    pub(super) absmax: Tensor,
    pub(super) nested: Option<Nested>,
    /// Shape of the dense weight, `[out, in]`.
    pub(super) shape: [i64; 2],
    /// Dtype of the weight that was quantised, and of what it is dequantised to.
    pub(super) kind: Kind,
    /// Dtype that the matrix product is computed in.
    pub(super) compute: Kind,
}

/// The scales of the scales.
#[derive(Debug)]
pub(super) struct Nested {
    /// f32 `[⌈blocks/256⌉]`.
    pub absmax: Tensor,
    /// f32 `[256]`.
    pub map: Tensor,
    pub offset: f64,
}

impl Nf4 {
    /// Quantises a weight `[out, in]` of f32, bf16 or f16, on the CPU wherever it is; `name` is for errors.
    ///
    /// # Errors
    /// A weight that has another shape or dtype, or values that are not finite.
    pub fn quantise(name: &str, weight: &Tensor, config: &Nf4Config) -> Result<Self> {
        let wrong = |why: String| Error::Unsupported { method: "NF4", site: name.to_owned(), why };
        let &[out, inp] = weight.size().as_slice() else {
            return Err(wrong(format!("its shape is {:?}, expected [out, in]", weight.size())));
        };
        if !matches!(weight.kind(), Kind::Float | Kind::BFloat16 | Kind::Half) {
            return Err(wrong(format!("its dtype is {:?}, expected floats of 16 or 32 bits", weight.kind())));
        }
        let device = weight.device();
        let map = Tensor::f_from_slice(&CODE_BOOK)?;
        let dense = weight.f_detach()?.f_to(Device::Cpu)?.f_contiguous()?;
        let ([codes, absmax], finite) = nf4::quantise(&dense, &map)?;
        if !finite {
            return Err(wrong("some of its values are not finite".into()));
        }
        let (absmax, nested) = if config.double_quant {
            let map = dynamic_map()?;
            let ([bytes, absmax], offset) = nf4::quantise_scales(&absmax, &map)?;
            (bytes, Some(Nested { absmax, map, offset }))
        } else {
            (absmax, None)
        };
        let (shape, kind) = ([out, inp], weight.kind());
        Self { codes, map, absmax, nested, shape, kind, compute: config.compute }.to_device(device)
    }

    /// The dense weight `[out, in]`, in the dtype that it had before it was quantised.
    pub fn dequantise(&self) -> Result<Tensor> {
        Ok(nf4::dequantise(&self.packed(), Path::Fastest)?)
    }

    /// The linear layer `y = x Wᵀ + b`, computed in the dtype [`Nf4::compute`]. The dense weight lives for one product at a time: it is formed
    /// again in the backward pass.
    pub fn linear(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let bias = bias.map(|b| b.f_to_kind(self.compute)).transpose()?;
        let y = nf4::linear(&x.f_to_kind(self.compute)?, &self.packed(), bias.as_ref())?;
        Ok(y.f_to_kind(x.kind())?)
    }

    fn packed(&self) -> nf4::Packed<'_> {
        let nested =
            self.nested.as_ref().map(|n| nf4::Nested { absmax: &n.absmax, map: &n.map, offset: n.offset });
        let ([rows, cols], kind) = (self.shape, self.kind);
        nf4::Packed { codes: &self.codes, map: &self.map, absmax: &self.absmax, nested, rows, cols, kind }
    }

    /// The shape of the dense weight, `[out, in]`.
    pub fn size(&self) -> [i64; 2] {
        self.shape
    }

    /// How many values the dense weight has.
    pub fn numel(&self) -> i64 {
        self.shape.iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// The dtype of the dense weight.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The dtype that products with the weight are computed in (`bnb_4bit_compute_dtype`).
    pub fn compute(&self) -> Kind {
        self.compute
    }

    /// The configuration that it was quantised with, as far as the weight itself knows: which layers were skipped, it does not.
    pub fn config(&self) -> Nf4Config {
        let (double_quant, compute) = (self.nested.is_some(), self.compute);
        Nf4Config { double_quant, compute, ..Nf4Config::default() }
    }

    /// How many bytes a weight of `numel` values will hold, as [`Nf4::bytes`] says once there is one: `⌈n/2⌉` of codes,
    /// `4⌈n/64⌉` of scales and the 16 values; with double quantisation the `b = ⌈n/64⌉` scales take `b + 4⌈b/256⌉`, and their 256 values.
    pub fn bytes_of(numel: i64, double_quant: bool) -> i64 {
        let n = u64::try_from(numel).unwrap_or_default();
        let blocks = n.div_ceil(BLOCK.unsigned_abs());
        let scales = match double_quant {
            true => [blocks, blocks.div_ceil(NESTED_BLOCK.unsigned_abs()).saturating_mul(4), 4 * 256],
            false => [blocks.saturating_mul(4), 0, 0],
        };
        let all = scales.into_iter().fold(n.div_ceil(2).saturating_add(4 * 16), u64::saturating_add);
        i64::try_from(all).unwrap_or(i64::MAX)
    }

    /// How many bytes its tensors hold.
    pub fn bytes(&self) -> usize {
        let nested = self.nested.as_ref().map_or([None; 2], |n| [Some(&n.absmax), Some(&n.map)]);
        let tensors = [&self.codes, &self.map, &self.absmax].into_iter().chain(nested.into_iter().flatten());
        tensors.map(|t| t.numel().saturating_mul(t.kind().elt_size_in_bytes())).sum()
    }

    /// The same weight: another handle, of the same tensors.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        let nested = self.nested.as_ref().map(|n| Nested {
            absmax: n.absmax.shallow_clone(),
            map: n.map.shallow_clone(),
            offset: n.offset,
        });
        Self {
            codes: self.codes.shallow_clone(),
            map: self.map.shallow_clone(),
            absmax: self.absmax.shallow_clone(),
            nested,
            ..*self
        }
    }

    pub(crate) fn to_device(&self, device: Device) -> Result<Self> {
        let nested = match &self.nested {
            Some(n) => {
                Some(Nested { absmax: n.absmax.f_to(device)?, map: n.map.f_to(device)?, offset: n.offset })
            }
            None => None,
        };
        Ok(Self {
            codes: self.codes.f_to(device)?,
            map: self.map.f_to(device)?,
            absmax: self.absmax.f_to(device)?,
            nested,
            ..*self
        })
    }

    /// The same codes, of a weight of another dtype.
    #[must_use]
    pub(crate) fn of_kind(&self, kind: Kind) -> Self {
        Self { kind, ..self.shallow_clone() }
    }

    /// As [`Nf4::of_kind`], computing in that dtype as well.
    #[must_use]
    pub(crate) fn to_kind(&self, kind: Kind) -> Self {
        Self { compute: kind, ..self.of_kind(kind) }
    }
}

/// The 256 values of a scale's byte: seven decades of evenly spaced midpoints with both signs, 0 and 1. Dettmers 2015,
/// <https://arxiv.org/abs/1511.04561>, as bitsandbytes has it.
fn dynamic_map() -> Result<Tensor> {
    let cpu = (Kind::Float, Device::Cpu);
    let mut values = vec![Tensor::f_from_slice(&[0f32, 1.0])?];
    for decade in 0..7i32 {
        let steps = 1i64.wrapping_shl(decade.unsigned_abs());
        let edges = Tensor::f_linspace(0.1, 1.0, steps.saturating_add(1), cpu)?;
        let sums = edges.f_narrow(0, 0, steps)?.f_add(&edges.f_narrow(0, 1, steps)?)?;
        let positive = sums.f_div_scalar(2.0)?.f_mul_scalar(10f64.powi(decade.saturating_sub(6)))?;
        values.extend([positive.f_neg()?, positive]);
    }
    Ok(Tensor::f_cat(&values, 0)?.f_sort(0, false)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel and libtorch's operations, which run where there is no kernel, for all dtypes and odd ends.
    #[test]
    fn both_ways_to_dense_weights_have_the_same_bits() {
        tch::manual_seed(0);
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for shape in [[48, 512], [5, 13], [3, 7], [1, 1]] {
                for double_quant in [false, true] {
                    let w = Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
                    let config = Nf4Config { double_quant, ..Nf4Config::default() };
                    let packed = Nf4::quantise("w", &w, &config).unwrap();
                    let portable = nf4::dequantise(&packed.packed(), Path::Portable).unwrap();
                    let kernel = packed.dequantise().unwrap();
                    assert!(kernel.equal(&portable) && kernel.kind() == kind, "{kind:?} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn bytes_are_counted() {
        let w = Tensor::randn([256, 256], (Kind::Float, Device::Cpu));
        let single = Nf4::quantise("w", &w, &Nf4Config::default()).unwrap();
        assert_eq!(single.bytes(), 32768 + 4 * 1024 + 64);
        let config = Nf4Config { double_quant: true, ..Nf4Config::default() };
        let double = Nf4::quantise("w", &w, &config).unwrap();
        assert_eq!(double.bytes(), 32768 + 1024 + 4 * 4 + 64 + 1024);
        for shape in [[1, 1], [5, 13], [64, 1], [129, 257], [300, 200]] {
            for double_quant in [false, true] {
                let config = Nf4Config { double_quant, ..Nf4Config::default() };
                let w = Tensor::randn(shape, (Kind::Float, Device::Cpu));
                let found = Nf4::quantise("w", &w, &config).unwrap().bytes();
                assert_eq!(Nf4::bytes_of(shape[0] * shape[1], double_quant), found as i64, "{shape:?}");
            }
        }
    }
}
