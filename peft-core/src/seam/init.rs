//! How a fresh tensor is filled. Draws come from libtorch's CPU generator whatever the device, so that one seed
//! gives the same start everywhere, and they follow PyTorch's arithmetic to the last bit.

use crate::error::Result;
use tch::{Device, Kind, Tensor};

/// The distribution of a fresh parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Zeros; draws nothing.
    Zeros,
    /// Zeros, after drawing as many numbers as there are elements: `nn.init.zeros_` on a fresh layer of PyTorch's.
    ZerosDrawn,
    /// One value everywhere; draws nothing.
    Constant(f64),
    /// N(0, std²).
    Normal { std: f64 },
    /// U(−bound, bound).
    Uniform { bound: f64 },
    /// `nn.init.kaiming_uniform_(w, a=√5)`, the default of `nn.Linear`: U(±1/√fan_in), fan_in = the last dimension.
    KaimingUniform,
    /// `nn.init.xavier_uniform_(w)`: U(±√(6/(fan_in + fan_out))).
    XavierUniform,
}

impl Init {
    /// A new float tensor of shape `dims` on `device`.
    pub fn tensor(self, dims: &[i64], device: Device) -> Result<Tensor> {
        let mut t = Tensor::f_zeros(dims, (Kind::Float, Device::Cpu))?;
        let fan_in = dims.last().copied().unwrap_or(1) as f64;
        match self {
            Init::Zeros => {}
            Init::ZerosDrawn => t = t.f_uniform_(-1.0, 1.0)?.f_zero_()?,
            Init::Constant(value) => t = t.f_fill_(value)?,
            Init::Normal { std } => t = t.f_normal_(0.0, std)?,
            Init::Uniform { bound } => t = t.f_uniform_(-bound, bound)?,
            Init::KaimingUniform => {
                // The detour over √5² is Python's: it is 5.000000000000001 there as well.
                let gain = (2.0 / (1.0 + 5f64.sqrt().powi(2))).sqrt();
                let bound = 3f64.sqrt() * (gain / fan_in.sqrt());
                t = t.f_uniform_(-bound, bound)?;
            }
            Init::XavierUniform => {
                let fan_out = dims.first().copied().unwrap_or(1) as f64;
                let bound = 3f64.sqrt() * (2.0 / (fan_in + fan_out)).sqrt();
                t = t.f_uniform_(-bound, bound)?;
            }
        }
        Ok(t.f_to(device)?)
    }

    /// The bias of a fresh `nn.Linear` with that many inputs: U(±1/√fan_in).
    pub fn linear_bias(fan_in: i64) -> Self {
        Init::Uniform { bound: 1.0 / (fan_in as f64).sqrt() }
    }
}
