//! The random numbers of a run: dropout, and whatever else a training step draws.

use crate::error::{Error, Result};
use peft_sys::generator;
use std::collections::BTreeMap;
use tch::{Device, Tensor};

/// The state of libtorch's generators, the CPU's and the device's, as it is between two steps of a run. It is put there for
/// each step and taken back afterwards: what else the program draws is not seen by the run, nor does the run disturb it.
#[derive(Debug)]
pub(super) struct Streams {
    states: Vec<(Device, Tensor)>,
}

impl Streams {
    /// As freshly seeded.
    pub fn seeded(seed: u64, device: Device) -> Result<Self> {
        let before = Self::now(device)?;
        tch::manual_seed(i64::from_ne_bytes(seed.to_ne_bytes()));
        let seeded = Self::now(device);
        before.put()?;
        seeded
    }

    /// What the generators are at now.
    fn now(device: Device) -> Result<Self> {
        let devices = if device == Device::Cpu { vec![Device::Cpu] } else { vec![Device::Cpu, device] };
        let states = devices.into_iter().map(|device| Ok((device, generator::state(device)?)));
        Ok(Self { states: states.collect::<Result<_>>()? })
    }

    fn put(&self) -> Result<()> {
        self.states.iter().try_for_each(|(device, state)| Ok(generator::set_state(*device, state)?))
    }

    /// Runs a step that draws from these numbers. Where it fails, they are as before.
    pub fn within<T>(&mut self, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let device = self.states.last().map_or(Device::Cpu, |(device, _)| *device);
        let outside = Self::now(device)?;
        self.put()?;
        let result = step();
        let after = Self::now(device);
        outside.put()?;
        let value = result?;
        *self = after?;
        Ok(value)
    }

    /// The states by name, to be saved.
    pub fn tensors(&self) -> Vec<(&'static str, Tensor)> {
        self.states.iter().map(|(device, state)| (name(*device), state.shallow_clone())).collect()
    }

    /// Takes up what [`Streams::tensors`] gave. A GPU goes on with its own numbers where the saved run had none.
    pub fn restore(&mut self, saved: &BTreeMap<&str, Tensor>) -> Result<()> {
        let states = self.states.iter().map(|(device, own)| {
            let state = match saved.get(name(*device)) {
                Some(state) => state.shallow_clone(),
                None if *device == Device::Cpu => {
                    return Err(Error::Input("the state has no random numbers (`random.cpu`)".into()));
                }
                None => own.shallow_clone(),
            };
            // What is no such state is said here, and not by the next step.
            let now = generator::state(*device)?;
            let fits = generator::set_state(*device, &state);
            generator::set_state(*device, &now)?;
            fits.map_err(|e| Error::Input(format!("random state of {device:?}: {e}")))?;
            Ok((*device, state))
        });
        self.states = states.collect::<Result<_>>()?;
        Ok(())
    }
}

fn name(device: Device) -> &'static str {
    if device == Device::Cpu { "cpu" } else { "device" }
}
