//! Stores without numbers: every tensor is one zero that is seen as the whole shape. A constructor that runs over such
//! a base, with such an adapter, meets the names and shapes of the real ones, at no cost whatever their size.

use crate::error::Result;
use crate::seam::params::Params;
use tch::{Device, Kind, Tensor};

impl Params {
    /// An empty store in which every tensor is there, once it is asked for. Nothing is drawn, and nothing computed.
    pub(crate) fn phantom(label: impl Into<String>) -> Self {
        Self { phantom: true, ..Self::new(label, Device::Cpu) }
    }

    /// Makes the tensor that a phantom store is asked for.
    pub(super) fn conjure(&self, name: &str, dims: &[i64]) -> Result<()> {
        if self.phantom && !self.sealed && self.find(name).is_none() {
            self.insert(name, phantom(dims, Kind::Float).map_err(|e| e.at(name))?, false)?;
        }
        Ok(())
    }

    /// As [`Params::state`], of a shape that is known before: a phantom store has it without computing it.
    pub(crate) fn state_of(
        &self,
        name: &str,
        dims: &[i64],
        make: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.state(name, || if self.phantom { phantom(dims, Kind::Float) } else { make() })
    }
}

/// A tensor of that shape and dtype which holds one zero.
pub(crate) fn phantom(dims: &[i64], kind: Kind) -> Result<Tensor> {
    Ok(Tensor::f_zeros([0i64; 0], (kind, Device::Cpu))?.f_expand(dims, false)?)
}
