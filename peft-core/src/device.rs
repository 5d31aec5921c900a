//! Choosing a device by name, with CUDA loaded at run time.

use crate::error::{Error, Result};
use peft_sys::CudaError;
use std::str::FromStr;
use tch::Device;

/// What a user may ask for: `cpu`, `cuda`, `cuda:N`, `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    #[default]
    Cpu,
    Cuda(usize),
    /// The first CUDA device if there is one, the CPU otherwise.
    Auto,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let unknown =
            || Error::Device { device: s.to_owned(), why: "expected cpu, cuda, cuda:N or auto".into() };
        match s.split_once(':') {
            None => match s {
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "auto" => Ok(Self::Auto),
                _ => Err(unknown()),
            },
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| unknown()),
            Some(_) => Err(unknown()),
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(i) => write!(f, "cuda:{i}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl DeviceChoice {
    /// The device. Must be the first thing that a program asks of libtorch: it looks for CUDA once, and keeps the
    /// answer.
    ///
    /// # Errors
    /// [`Error::Device`] says which is missing: a libtorch with CUDA, a driver or device, or that device.
    pub fn open(self) -> Result<Device> {
        let index = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Auto => {
                return Ok(if peft_sys::load_cuda().is_ok() { Device::Cuda(0) } else { Device::Cpu });
            }
            Self::Cuda(index) => index,
        };
        let refuse = |why: String| Err(Error::Device { device: self.to_string(), why });
        match peft_sys::load_cuda() {
            Ok(n) if i64::try_from(index).is_ok_and(|i| i < n) => Ok(Device::Cuda(index)),
            Ok(n) => refuse(format!("there are {n} CUDA devices, numbered from 0")),
            Err(CudaError::NoDevice) => refuse(
                "libtorch has CUDA, but finds no NVIDIA driver or no device (does `nvidia-smi` list one?)"
                    .into(),
            ),
            Err(CudaError::NoLibrary(loader)) => refuse(format!(
                "this libtorch has no CUDA ({loader}); set LD_LIBRARY_PATH to the lib folder of a torch 2.11.0 with \
                 CUDA, or build with LIBTORCH set to one"
            )),
            Err(other) => refuse(format!("{other:?}")),
        }
    }
}

/// The most bytes that tensors held on `device` since [`reset_peak_memory`].
pub fn peak_memory(device: Device) -> Result<i64> {
    match device {
        Device::Cuda(i) => Ok(peft_sys::cuda_memory_peak(i)?),
        _ => Ok(i64::try_from(peft_sys::memory::peak()).unwrap_or(i64::MAX)),
    }
}

/// Starts a new measurement of [`peak_memory`].
pub fn reset_peak_memory(device: Device) -> Result<()> {
    match device {
        Device::Cuda(i) => Ok(peft_sys::cuda_memory_reset(i)?),
        _ => {
            peft_sys::memory::reset_peak();
            Ok(())
        }
    }
}

/// Waits until `device` has done all that it was given: needed around every time measurement.
pub fn synchronize(device: Device) -> Result<()> {
    match device {
        Device::Cuda(i) => Ok(peft_sys::cuda_synchronize(i)?),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!("cuda:3".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(3));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cpu:0", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}
