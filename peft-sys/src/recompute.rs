//! Parts of a model whose inner values are computed again for the gradients instead of being kept.

use crate::{ShimError, check, generator};
use std::ffi::{CString, c_char, c_void};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn peft_recomputed(
        x: *const C_tensor,
        y: *const C_tensor,
        data: *mut c_void,
        call: unsafe extern "C" fn(*mut c_void, *const C_tensor, *mut *mut C_tensor) -> *mut c_char,
        drop: unsafe extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// What the backward pass calls.
type Again = Box<dyn Fn(&Tensor) -> Result<Tensor, String> + Send>;

/// `part(x)`, of which nothing is kept for the gradients but `x`: when those are due, the part is computed again, with the
/// random numbers that it drew at first, and differentiated. Gradients of parameters that it uses are added to those that
/// they have; so this is for a backward pass that does the same, and not for one that asks for the gradients of chosen
/// tensors.
///
/// # Errors
/// What the part says.
pub fn recomputed<E, F>(x: &Tensor, part: F) -> Result<Tensor, E>
where
    E: Display + From<ShimError>,
    F: Fn(&Tensor) -> Result<Tensor, E> + Send + 'static,
{
    let random = Random::of(x.device())?;
    let y = {
        let _guard = tch::no_grad_guard();
        part(x)?
    };
    let again: Again = Box::new(move |x| random.within(|| part(x)).map_err(|e| e.to_string()));
    let data = Box::into_raw(Box::new(again)).cast();
    let mut out = std::ptr::null_mut();
    // SAFETY: live tensors, borrowed for the call; `data` is an `Again` of our own, which `call` reads and `release` frees,
    // once, when the graph is gone. libtorch calls from one thread at a time, so `Send` is enough.
    check(unsafe { peft_recomputed(x.as_ptr(), y.as_ptr(), data, call, release, &mut out) })?;
    // SAFETY: the shim made it for us.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Runs the part; a message of malloc's where that fails. Nothing unwinds into C++.
unsafe extern "C" fn call(data: *mut c_void, x: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char {
    let run = || {
        // SAFETY: see `recomputed`; the tensor lives for the call, and the clone is a handle of its own.
        let (again, x) = unsafe { (&*data.cast::<Again>(), Tensor::clone_from_ptr(x.cast_mut())) };
        again(&x)
    };
    let message = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(y)) => {
            // SAFETY: a place for the answer. The handle goes over to the shim, which deletes it.
            unsafe { *out = y.as_ptr().cast_mut() };
            std::mem::forget(y);
            return std::ptr::null_mut();
        }
        Ok(Err(message)) => message,
        Err(_) => "a part of the model panicked".to_owned(),
    };
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a NUL-terminated string; the copy is the shim's to free.
    unsafe { libc::strdup(message.as_ptr()) }
}

unsafe extern "C" fn release(data: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `recomputed`; the shim calls this once.
    drop(unsafe { Box::from_raw(data.cast::<Again>()) });
}

/// What the generators were at.
struct Random(Vec<(Device, Tensor)>);

impl Random {
    fn of(device: Device) -> Result<Self, ShimError> {
        let devices = if device == Device::Cpu { vec![Device::Cpu] } else { vec![Device::Cpu, device] };
        devices
            .into_iter()
            .map(|device| Ok((device, generator::state(device)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn put(&self) -> Result<(), ShimError> {
        self.0.iter().try_for_each(|(device, state)| generator::set_state(*device, state))
    }

    /// Runs with these numbers, and leaves the generators as they were.
    fn within<T, E: From<ShimError>>(&self, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let device = self.0.last().map_or(Device::Cpu, |(device, _)| *device);
        let outside = Self::of(device)?;
        self.put()?;
        let result = run();
        outside.put()?;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// One generator for all of a process.
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());

    fn part(w: &Tensor) -> impl Fn(&Tensor) -> Result<Tensor, ShimError> + Send + 'static {
        let w = w.shallow_clone();
        move |x| Ok(x.matmul(&w).tanh().dropout(0.3, true).matmul(&w))
    }

    fn gradients(again: bool, wanted: bool) -> Vec<Tensor> {
        tch::manual_seed(3);
        // One for each part: sums over parts would be formed in another order.
        let [v, w] =
            [0, 1].map(|_| Tensor::randn([6, 6], (Kind::Float, Device::Cpu)).set_requires_grad(true));
        let x = Tensor::randn([4, 6], (Kind::Float, Device::Cpu)).set_requires_grad(wanted);
        let run = |x: &Tensor, w: &Tensor| {
            if again { recomputed(x, part(w)).unwrap() } else { part(w)(x).unwrap() }
        };
        let y = run(&run(&x, &v), &w);
        (&y * &y).sum(Kind::Float).backward();
        let next = Tensor::randn([3], (Kind::Float, Device::Cpu));
        let mut all = vec![y.detach(), v.grad(), w.grad(), next];
        all.extend(wanted.then(|| x.grad()));
        all
    }

    #[test]
    fn values_gradients_and_random_numbers_are_the_same() {
        let _guard = GENERATOR.lock();
        for wanted in [false, true] {
            let (plain, again) = (gradients(false, wanted), gradients(true, wanted));
            assert!(plain.iter().zip(&again).all(|(a, b)| a.equal(b)), "{plain:?} {again:?}");
        }
    }

    #[test]
    fn an_error_of_the_part_is_the_backward_pass_s() {
        let _guard = GENERATOR.lock();
        let w = Tensor::randn([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = Tensor::randn([2, 2], (Kind::Float, Device::Cpu));
        let times = std::sync::atomic::AtomicUsize::new(0);
        let y = recomputed(&x, move |x| match times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Ok(x.matmul(&w)),
            _ => Err(ShimError("no second time".into())),
        });
        let error = y.unwrap().sum(Kind::Float).f_backward().unwrap_err().to_string();
        assert!(error.contains("no second time"), "{error}");
    }
}
