//! What libtorch has and tch 0.24 does not, behind safe functions: whole optimizer steps in one call,
//! byte-exact counters of tensor memory, kernels of 4-bit weights, the state of random generators, layers that are computed
//! again for their gradients, memory-mapped files, and loading CUDA's half of libtorch at run time.
//!
//! All `unsafe` code of the workspace is in this crate; `peft-core` forbids it.

mod cuda;
pub mod generator;
pub mod nf4;
mod recompute;
pub use cuda::{CudaDevice, CudaError, cuda_device, cuda_driver, cuda_folder, load_cuda, loaded};
pub use recompute::recomputed;

use std::ffi::{CStr, c_char, c_int};
use tch::Tensor;
use torch_sys::C_tensor;

/// libtorch's message, cut to its first line (the rest is a C++ stack).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimError(pub String);

impl std::fmt::Display for ShimError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShimError {}

unsafe extern "C" {
    fn peft_free(message: *mut c_char);
    fn peft_adam_step(
        p: *const *mut C_tensor,
        g: *const *mut C_tensor,
        m: *const *mut C_tensor,
        v: *const *mut C_tensor,
        n: usize,
        step: i64,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        decoupled: bool,
        fused: bool,
    ) -> *mut c_char;
    fn peft_grad_norm(g: *const *mut C_tensor, n: usize, out: *mut f64) -> *mut c_char;
    fn peft_scale(g: *const *mut C_tensor, n: usize, factor: f64) -> *mut c_char;
    fn peft_seeded_uniform(t: *const *mut C_tensor, bounds: *const f64, n: usize, seed: u64) -> *mut c_char;
    fn peft_memory_install();
    fn peft_memory_live() -> usize;
    fn peft_memory_peak() -> usize;
    fn peft_memory_reset();
    fn peft_memory_limit(bytes: usize);
    fn peft_cuda_memory_peak(device: c_int, bytes: *mut i64) -> *mut c_char;
    fn peft_cuda_memory_reset(device: c_int) -> *mut c_char;
    fn peft_cuda_synchronize(device: c_int) -> *mut c_char;
}

fn check(message: *mut c_char) -> Result<(), ShimError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null return value is a NUL-terminated string that the shim allocated for us.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        peft_free(message);
        text
    };
    Err(ShimError(text.lines().next().unwrap_or_default().to_owned()))
}

/// tch's handle is the C++ tensor's address; the shim reads it during the call and keeps nothing.
fn handles(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|t| t.as_ptr().cast_mut()).collect()
}

/// A file's bytes, read as they are touched.
///
/// The file must not be shortened by anybody while the map lives; that ends the process, as with every memory map.
pub fn map_file(path: &std::path::Path) -> std::io::Result<memmap2::Mmap> {
    let file = std::fs::File::open(path)?;
    // SAFETY: the map is read-only and private; see above for the one thing that is asked of others.
    unsafe { memmap2::Mmap::map(&file) }
}

/// CPU time of all threads of this process so far, in seconds: what to compare on a machine that has other work.
pub fn cpu_seconds() -> f64 {
    #[cfg(unix)]
    {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a place for the answer.
        if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) } == 0 {
            return t.tv_sec as f64 + 1e-9 * t.tv_nsec as f64;
        }
    }
    f64::NAN
}

/// The constants of one Adam or AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Number of this step, from 1.
    pub step: i64,
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// AdamW (`p *= 1 - lr * weight_decay`) rather than Adam (`g += weight_decay * p`).
    pub decoupled: bool,
    /// One pass over memory (`_fused_adam_`), instead of PyTorch's single-tensor path whose bits Python has.
    pub fused: bool,
}

/// Updates `params` from `grads`, and the moments `m` and `v`, in place.
///
/// # Errors
/// When the four lists differ in length, or libtorch refuses (dtypes, devices).
pub fn adam_step(
    params: &[Tensor],
    grads: &[Tensor],
    m: &[Tensor],
    v: &[Tensor],
    c: &AdamStep,
) -> Result<(), ShimError> {
    let n = params.len();
    if grads.len() != n || m.len() != n || v.len() != n {
        let text =
            format!("adam: {n} parameters, {} gradients, {} and {} moments", grads.len(), m.len(), v.len());
        return Err(ShimError(text));
    }
    let (p, g, m, v) = (handles(params), handles(grads), handles(m), handles(v));
    // SAFETY: four arrays of n live tensors, borrowed for the call.
    check(unsafe {
        peft_adam_step(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            n,
            c.step,
            c.lr,
            c.beta1,
            c.beta2,
            c.eps,
            c.weight_decay,
            c.decoupled,
            c.fused,
        )
    })
}

/// The 2-norm of all `grads` taken together.
pub fn grad_norm(grads: &[Tensor]) -> Result<f64, ShimError> {
    let mut out = 0.0;
    let g = handles(grads);
    // SAFETY: an array of live tensors and a place for the answer.
    check(unsafe { peft_grad_norm(g.as_ptr(), g.len(), &mut out) })?;
    Ok(out)
}

/// Multiplies each tensor by `factor`, in place.
pub fn scale(grads: &[Tensor], factor: f64) -> Result<(), ShimError> {
    let g = handles(grads);
    // SAFETY: an array of live tensors.
    check(unsafe { peft_scale(g.as_ptr(), g.len(), factor) })
}

/// Fills each CPU tensor with U(−bound, bound), one after another, with the numbers of
/// `torch.Generator().manual_seed(seed)`. libtorch's global generator is not touched.
pub fn seeded_uniform(seed: u64, tensors: &[(&Tensor, f64)]) -> Result<(), ShimError> {
    let handles: Vec<_> = tensors.iter().map(|(t, _)| t.as_ptr().cast_mut()).collect();
    let bounds: Vec<f64> = tensors.iter().map(|(_, bound)| *bound).collect();
    // SAFETY: two arrays of the same length, of live tensors and of numbers.
    check(unsafe { peft_seeded_uniform(handles.as_ptr(), bounds.as_ptr(), handles.len(), seed) })
}

/// Counters of the bytes that CPU tensors hold. They count from [`memory::install`] on, so call it before the
/// first tensor is made.
pub mod memory {
    /// Puts the counting allocator in place of libtorch's.
    pub fn install() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        // SAFETY: replaces the allocator; blocks of the earlier one carry their own deleter.
        ONCE.call_once(|| unsafe { super::peft_memory_install() });
    }
    /// Bytes held now.
    pub fn live() -> usize {
        // SAFETY: reads an atomic.
        unsafe { super::peft_memory_live() }
    }
    /// Most bytes held at any time since the last [`reset_peak`].
    pub fn peak() -> usize {
        // SAFETY: reads an atomic.
        unsafe { super::peft_memory_peak() }
    }
    /// Starts a new measurement: the peak becomes what is held now.
    pub fn reset_peak() {
        // SAFETY: writes an atomic.
        unsafe { super::peft_memory_reset() }
    }
    /// From now on a tensor that would bring what is held above `bytes` is refused, as where there is no more memory; 0 is
    /// no limit.
    pub fn limit(bytes: usize) {
        // SAFETY: writes an atomic.
        unsafe { super::peft_memory_limit(bytes) }
    }
}

/// Most bytes that CUDA device `device` held since [`cuda_memory_reset`].
pub fn cuda_memory_peak(device: usize) -> Result<i64, ShimError> {
    let mut bytes = 0;
    // SAFETY: a place for the answer.
    check(unsafe { peft_cuda_memory_peak(index(device)?, &mut bytes) })?;
    Ok(bytes)
}

/// Starts a new measurement on CUDA device `device`.
pub fn cuda_memory_reset(device: usize) -> Result<(), ShimError> {
    // SAFETY: no pointers.
    check(unsafe { peft_cuda_memory_reset(index(device)?) })
}

/// Waits for CUDA device `device` to finish its queue.
pub fn cuda_synchronize(device: usize) -> Result<(), ShimError> {
    // SAFETY: no pointers.
    check(unsafe { peft_cuda_synchronize(index(device)?) })
}

fn index(device: usize) -> Result<c_int, ShimError> {
    c_int::try_from(device).map_err(|_| ShimError(format!("no CUDA device {device}")))
}
