//! Kernels of the 4-bit format NF4; `peft-core` knows what the numbers mean.

use crate::{ShimError, check};
use std::ffi::{c_char, c_int};
use tch::{Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn peft_nf4_quantise(
        x: *const C_tensor,
        map: *const C_tensor,
        codes: *mut *mut C_tensor,
        absmax: *mut *mut C_tensor,
        finite: *mut bool,
    ) -> *mut c_char;
    fn peft_nf4_quantise_scales(
        absmax: *const C_tensor,
        map: *const C_tensor,
        bytes: *mut *mut C_tensor,
        nested_absmax: *mut *mut C_tensor,
        offset: *mut f64,
    ) -> *mut c_char;
    fn peft_nf4_dequantise(
        parts: *const *mut C_tensor,
        offset: f64,
        rows: i64,
        cols: i64,
        dtype: c_int,
        portable: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn peft_nf4_linear(
        x: *const C_tensor,
        parts: *const *mut C_tensor,
        offset: f64,
        rows: i64,
        cols: i64,
        dtype: c_int,
        bias: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// One weight in 4 bits.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// Two codes a byte, uint8 `[⌈n/2⌉, 1]`.
    pub codes: &'a Tensor,
    /// What the 16 codes stand for.
    pub map: &'a Tensor,
    /// One scale a block of 64: f32, or uint8 if they are quantised themselves.
    pub absmax: &'a Tensor,
    pub nested: Option<Nested<'a>>,
    pub rows: i64,
    pub cols: i64,
    /// Of the dense weight.
    pub kind: Kind,
}

/// What a scale's byte stands for: `map[byte] · absmax + offset`, with one absmax a block of 256.
#[derive(Debug, Clone, Copy)]
pub struct Nested<'a> {
    pub absmax: &'a Tensor,
    pub map: &'a Tensor,
    pub offset: f64,
}

/// Which code [`dequantise`] runs. Both have the same bits, so this is nobody's choice: the portable code is what runs where
/// there is no kernel, and can be named so that a test compares the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// The kernel where there is one, on the CPU, and the portable code elsewhere.
    Fastest,
    /// The portable code alone: operations of libtorch, on every device.
    Portable,
}

impl Packed<'_> {
    fn parts(&self) -> [*mut C_tensor; 5] {
        let handle = |t: &Tensor| t.as_ptr().cast_mut();
        let null = std::ptr::null_mut();
        let (scale, map) = self.nested.map_or((null, null), |n| (handle(n.absmax), handle(n.map)));
        [handle(self.codes), handle(self.map), handle(self.absmax), scale, map]
    }

    fn offset(&self) -> f64 {
        self.nested.map_or(0.0, |n| n.offset)
    }
}

/// The number that libtorch has for a dtype.
fn number(kind: Kind) -> Result<c_int, ShimError> {
    match kind {
        Kind::Half => Ok(5),
        Kind::Float => Ok(6),
        Kind::BFloat16 => Ok(15),
        other => Err(ShimError(format!("NF4 is for f32, bf16 and f16, not for {other:?}"))),
    }
}

/// Runs a function that leaves `N` new tensors.
fn made<const N: usize>(
    f: impl FnOnce(&mut [*mut C_tensor; N]) -> *mut c_char,
) -> Result<[Tensor; N], ShimError> {
    let mut out = [std::ptr::null_mut(); N];
    check(f(&mut out))?;
    // SAFETY: without an error, each is a tensor that the shim made for us.
    Ok(out.map(|t| unsafe { Tensor::from_ptr(t) }))
}

/// Codes and scales of `x` (contiguous, on the CPU), and whether all its values are finite. `map` ascends.
pub fn quantise(x: &Tensor, map: &Tensor) -> Result<([Tensor; 2], bool), ShimError> {
    number(x.kind())?;
    let mut finite = false;
    // SAFETY: live tensors and places for the answers.
    let parts = made(|[codes, absmax]| unsafe {
        peft_nf4_quantise(x.as_ptr(), map.as_ptr(), codes, absmax, &mut finite)
    })?;
    Ok((parts, finite))
}

/// Scales as bytes, the scales of those, and the offset. `map` has 256 values and ascends.
pub fn quantise_scales(absmax: &Tensor, map: &Tensor) -> Result<([Tensor; 2], f64), ShimError> {
    let mut offset = 0.0;
    // SAFETY: live tensors and places for the answers.
    let parts = made(|[bytes, nested]| unsafe {
        peft_nf4_quantise_scales(absmax.as_ptr(), map.as_ptr(), bytes, nested, &mut offset)
    })?;
    Ok((parts, offset))
}

/// The dense weight `[rows, cols]`.
pub fn dequantise(w: &Packed<'_>, path: Path) -> Result<Tensor, ShimError> {
    let (kind, parts, portable) = (number(w.kind)?, w.parts(), path == Path::Portable);
    // SAFETY: five tensors or nulls, borrowed for the call, and a place for the answer.
    let [out] = made(|[out]| unsafe {
        peft_nf4_dequantise(parts.as_ptr(), w.offset(), w.rows, w.cols, kind, portable, out)
    })?;
    Ok(out)
}

/// `x Wᵀ + b`, in the dtype of `x`. Gradients go to `x` and `b`; autograd keeps the packed weight alone.
pub fn linear(x: &Tensor, w: &Packed<'_>, bias: Option<&Tensor>) -> Result<Tensor, ShimError> {
    let (kind, parts) = (number(w.kind)?, w.parts());
    let bias = bias.map_or(std::ptr::null(), Tensor::as_ptr);
    // SAFETY: live tensors, five tensors or nulls, a tensor or null, and a place for the answer.
    let [out] = made(|[out]| unsafe {
        peft_nf4_linear(x.as_ptr(), parts.as_ptr(), w.offset(), w.rows, w.cols, kind, bias, out)
    })?;
    Ok(out)
}
