//! The state of libtorch's random generators, which dropout and initial values are drawn from.

use crate::{ShimError, check, index};
use std::ffi::{c_char, c_int};
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn peft_generator_state(cuda: c_int, out: *mut *mut C_tensor) -> *mut c_char;
    fn peft_generator_set_state(cuda: c_int, state: *const C_tensor) -> *mut c_char;
}

/// As the shim names a device.
fn number(device: Device) -> Result<c_int, ShimError> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(i) => index(i),
        other => Err(ShimError(format!("{other:?} has no generator that can be read"))),
    }
}

/// The state of the device's generator: bytes, on the CPU.
///
/// # Errors
/// A device that is not there.
pub fn state(device: Device) -> Result<Tensor, ShimError> {
    let mut out = std::ptr::null_mut();
    // SAFETY: a place for the answer, which is a tensor of our own.
    check(unsafe { peft_generator_state(number(device)?, &mut out) })?;
    // SAFETY: the shim made it for us.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Takes up a state that [`state`] gave: what is drawn next is what was drawn next then.
///
/// # Errors
/// Bytes that are not the state of such a generator; it is unchanged then.
pub fn set_state(device: Device, state: &Tensor) -> Result<(), ShimError> {
    // SAFETY: a live tensor, borrowed for the call.
    check(unsafe { peft_generator_set_state(number(device)?, state.as_ptr()) })
}
