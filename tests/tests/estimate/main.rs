//! Estimates without numbers are what the library makes with them: counts, and bytes.

mod advice;
mod counts;
mod memory;

use peft_core::estimate::{Optimizer, Setup, Storage};
use tch::{Kind, Tensor};

/// A dense base and Adam.
fn dense(kind: Kind) -> Setup {
    Setup { base: Storage::Dense(kind), optimizer: Optimizer::Adam }
}

/// Bytes of these tensors.
fn bytes<'t>(tensors: impl IntoIterator<Item = &'t Tensor>) -> i64 {
    tensors.into_iter().map(|t| (t.numel() * t.kind().elt_size_in_bytes()) as i64).sum()
}
