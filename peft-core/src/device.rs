//! Where it is computed: the device, by name, with CUDA loaded at run time; and how many threads of the CPU.

use crate::error::{Error, Result};
pub use peft_sys::{CudaDevice, CudaError, cuda_device, cuda_driver, cuda_folder, load_cuda, loaded};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU16;
use std::str::FromStr;
use tch::Device;

/// The version of libtorch that this is for.
pub const LIBTORCH: &str = "2.11.0";

/// The device that a user asks for, as `--device` takes it: `cpu`, `cuda`, `cuda:N`, `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// `cpu`.
    #[default]
    Cpu,
    /// `cuda:N`, the CUDA device of that number; `cuda` is the first one, 0.
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
    /// The device that was asked for. This must be the first thing that a program asks of libtorch: it looks for CUDA once,
    /// and keeps the answer.
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
                "this libtorch has no CUDA ({loader}); run scripts/libtorch.sh --cuda, or set LD_LIBRARY_PATH to the lib \
                 folder of a torch {LIBTORCH} with CUDA"
            )),
            Err(other) => refuse(format!("{other:?}")),
        }
    }
}

/// How many CPU threads libtorch computes with, as `--threads` takes it: a number, or `auto`, the default.
///
/// More threads help a large model on a machine that has nothing else to do, and hinder everything else, since a thread whose
/// partner is not running waits for it in a loop. On two cores, a training step of the lessons' model of 28,740 parameters took
/// 7 ms with one thread and 12 ms with two; beside a busy program 34 and 138 ms, some steps with two more than 2 s; of a model of
/// 3.4 million parameters 65 and 435 ms. Of one of 22.7 million, on an idle machine, two threads halve the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Threads(Option<NonZeroU16>);

impl Threads {
    /// What `--help` says of `--threads`.
    pub const HELP: &'static str = "CPU threads: a number, or auto: one for a model of less than ten million parameters, \
                                    which more of them slow down, and as many as libtorch thinks fit for a larger one";
    /// One thread.
    pub const ONE: Self = Self(Some(NonZeroU16::MIN));
    /// Parameters from which `auto` leaves the number to libtorch.
    const LARGE: i64 = 10_000_000;

    /// Sets the number for the whole process, from now on. `parameters` are those of the model, which `auto` goes by: 0 will do
    /// for a small one. For a large one `auto` leaves the number as it is.
    pub fn set(self, parameters: i64) {
        let small = (parameters < Self::LARGE).then_some(NonZeroU16::MIN);
        if let Some(threads) = self.0.or(small) {
            tch::set_num_threads(threads.get().into());
        }
    }
}

impl FromStr for Threads {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match (s, s.parse()) {
            ("auto", _) => Ok(Self(None)),
            (_, Ok(threads)) => Ok(Self(Some(threads))),
            (_, Err(_)) => {
                Err(Error::Input(format!("threads: `{s}`, expected auto or a number from 1 to 65535")))
            }
        }
    }
}

impl std::fmt::Display for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("auto"),
            Some(threads) => write!(f, "{threads}"),
        }
    }
}

/// Begins to count the bytes that tensors hold on the CPU, for [`peak_memory`]: a program does that before it makes any. On
/// a GPU they always are.
pub fn count_memory() {
    peft_sys::memory::install();
}

/// As [`count_memory`]; and a tensor that would bring what is held on the CPU above `bytes` is refused from now on, as
/// [`Error::Memory`]. 0 is no limit.
pub fn limit_memory(bytes: i64) {
    count_memory();
    peft_sys::memory::limit(usize::try_from(bytes).unwrap_or_default());
}

/// The most bytes that tensors held on `device` at any time since [`reset_peak_memory`].
pub fn peak_memory(device: Device) -> Result<i64> {
    match device {
        Device::Cuda(i) => Ok(peft_sys::cuda_memory_peak(i)?),
        _ => Ok(i64::try_from(peft_sys::memory::peak()).unwrap_or(i64::MAX)),
    }
}

/// Starts a new measurement of [`peak_memory`]: the peak becomes what tensors hold now.
pub fn reset_peak_memory(device: Device) -> Result<()> {
    match device {
        Device::Cuda(i) => Ok(peft_sys::cuda_memory_reset(i)?),
        _ => {
            peft_sys::memory::reset_peak();
            Ok(())
        }
    }
}

/// Waits until `device` has done all that it was given to do. A GPU works on while the program goes on, so a measurement of
/// time begins and ends with this.
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
    fn numbers_of_threads() {
        assert_eq!("auto".parse::<Threads>().unwrap(), Threads::default());
        assert_eq!("1".parse::<Threads>().unwrap(), Threads::ONE);
        assert_eq!("12".parse::<Threads>().unwrap().to_string(), "12");
        assert_eq!(Threads::default().to_string(), "auto");
        for wrong in ["0", "-1", "two", "", "70000"] {
            assert!(wrong.parse::<Threads>().unwrap_err().to_string().contains(wrong));
        }
        let json = |threads: Threads| serde_json::to_string(&threads).unwrap();
        assert_eq!([json(Threads::default()), json(Threads::ONE)], ["null", "1"]);
    }

    #[test]
    fn names_of_devices() {
        assert_eq!("cuda:3".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(3));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cpu:0", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}
