//! Loading CUDA's half of libtorch at run time, so that one binary serves machines with and without a GPU.

/// Why CUDA cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CudaError {
    /// The library is not there, or not loadable: the loader's message.
    NoLibrary(String),
    /// The library is there, and finds no driver or no device.
    NoDevice,
}

/// Loads `libtorch_cuda` and says how many devices it finds.
///
/// libtorch looks for its CUDA half once and keeps the answer, at the first seed, backward pass or CUDA question.
/// So this must come first in `main`: later it still loads, and CUDA stays dead.
///
/// Looked for where the loader looks (`LD_LIBRARY_PATH`, then beside the libtorch that the program was linked
/// with), then in `$LIBTORCH/lib`.
///
/// # Errors
/// [`CudaError`] says which of the two things is missing.
pub fn load_cuda() -> Result<i64, CudaError> {
    if !tch::utils::has_cudart() {
        open()?;
    }
    match tch::Cuda::device_count() {
        n if n > 0 && tch::Cuda::is_available() => Ok(n),
        _ => Err(CudaError::NoDevice),
    }
}

#[cfg(unix)]
fn open() -> Result<(), CudaError> {
    use std::ffi::{CStr, CString};
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};
    let name = if cfg!(target_os = "macos") { "libtorch_cuda.dylib" } else { "libtorch_cuda.so" };
    let named = std::env::var_os("LIBTORCH").map(|dir| Path::new(&dir).join("lib").join(name));
    let mut why = None;
    for path in [Some(PathBuf::from(name)), named].into_iter().flatten() {
        let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { continue };
        // SAFETY: a NUL-terminated path; the library's initialisers are libtorch's own. It is never closed.
        unsafe {
            if !libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
                return Ok(());
            }
            let message = libc::dlerror();
            if !message.is_null() {
                why.get_or_insert(CStr::from_ptr(message).to_string_lossy().into_owned());
            }
        }
    }
    Err(CudaError::NoLibrary(why.unwrap_or_else(|| name.into())))
}

#[cfg(not(unix))]
fn open() -> Result<(), CudaError> {
    Err(CudaError::NoLibrary("loading torch_cuda.dll at run time is not supported on this system".into()))
}
