//! A tensor without numbers.

use crate::error::Result;
use tch::{Device, Kind, Tensor};

/// A tensor of that shape and dtype which holds one zero.
pub(crate) fn phantom(dims: &[i64], kind: Kind) -> Result<Tensor> {
    Ok(Tensor::f_zeros([0i64; 0], (kind, Device::Cpu))?.f_expand(dims, false)?)
}
