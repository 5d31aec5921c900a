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

/// What a CUDA device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// "NVIDIA H100 80GB HBM3"
    pub name: String,
    /// Bytes of its memory.
    pub memory: u64,
}

/// Asks the driver, which libtorch's CUDA half has loaded, about device `index`.
///
/// # Errors
/// [`CudaError::NoLibrary`] without a driver, [`CudaError::NoDevice`] without that device.
pub fn cuda_device(index: usize) -> Result<CudaDevice, CudaError> {
    driver::device(index)
}

#[cfg(unix)]
mod driver {
    use super::{CudaDevice, CudaError};
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use std::mem::transmute;

    // As `cuda.h` declares them; 0 is success.
    type Init = unsafe extern "C" fn(flags: c_uint) -> c_int;
    type Get = unsafe extern "C" fn(device: *mut c_int, ordinal: c_int) -> c_int;
    type Name = unsafe extern "C" fn(name: *mut c_char, length: c_int, device: c_int) -> c_int;
    type Memory = unsafe extern "C" fn(bytes: *mut usize, device: c_int) -> c_int;

    pub fn device(index: usize) -> Result<CudaDevice, CudaError> {
        // SAFETY: a NUL-terminated name; the library is never closed.
        let driver = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
        if driver.is_null() {
            return Err(CudaError::NoLibrary("libcuda.so.1".into()));
        }
        let find = |name: &CStr| -> Result<*mut c_void, CudaError> {
            // SAFETY: an open library and a NUL-terminated name.
            let found = unsafe { libc::dlsym(driver, name.as_ptr()) };
            if found.is_null() {
                Err(CudaError::NoLibrary(name.to_string_lossy().into_owned()))
            } else {
                Ok(found)
            }
        };
        let (init, get) = (find(c"cuInit")?, find(c"cuDeviceGet")?);
        let (name, memory) = (find(c"cuDeviceGetName")?, find(c"cuDeviceTotalMem_v2")?);
        let ordinal = c_int::try_from(index).map_err(|_| CudaError::NoDevice)?;
        let (mut device, mut bytes, mut text) = (0, 0, [0; 256]);
        // SAFETY: the driver's functions, found by name, with the signatures that its header has, and places for their
        // answers; the text is one shorter than its place, so it ends with a NUL.
        let failed = unsafe {
            transmute::<*mut c_void, Init>(init)(0) != 0
                || transmute::<*mut c_void, Get>(get)(&mut device, ordinal) != 0
                || transmute::<*mut c_void, Name>(name)(text.as_mut_ptr(), 255, device) != 0
                || transmute::<*mut c_void, Memory>(memory)(&mut bytes, device) != 0
        };
        if failed {
            return Err(CudaError::NoDevice);
        }
        // SAFETY: see above.
        let name = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
        Ok(CudaDevice { name, memory: bytes as u64 })
    }
}

#[cfg(not(unix))]
mod driver {
    use super::{CudaDevice, CudaError};

    pub fn device(_: usize) -> Result<CudaDevice, CudaError> {
        Err(CudaError::NoLibrary("asking the driver is not supported on this system".into()))
    }
}
