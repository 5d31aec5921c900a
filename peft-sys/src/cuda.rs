//! Loading CUDA's half of libtorch at run time, so that one binary serves machines with and without a GPU.

use std::path::{Path, PathBuf};

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
/// with), in `$LIBTORCH/lib`, and in [`cuda_folder`].
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

/// Where the libraries are that `scripts/libtorch.sh --cuda` has put beside the libtorch of this process:
/// `.libtorch-cuda/torch/lib` for `.libtorch/lib`. `None` where the system does not say which libtorch it is.
pub fn cuda_folder() -> Option<PathBuf> {
    let libtorch = loaded("libtorch_cpu")?.parent()?.parent()?.to_owned();
    let mut beside = libtorch.file_name()?.to_owned();
    beside.push("-cuda");
    Some(libtorch.with_file_name(beside).join("torch/lib"))
}

/// The file of a shared library that this process has loaded, by the beginning of its name. Linux says; others do not.
pub fn loaded(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    paths.map(Path::new).find(|path| named(path, name)).map(Path::to_owned)
}

/// Whether it is the library: `libtorch_cpu.so`, `libcudnn.so.9`, and not `libtorch_cpu_extra.so`.
fn named(path: &Path, library: &str) -> bool {
    let rest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(library));
    rest.is_some_and(|rest| rest.starts_with(".so"))
}

#[cfg(unix)]
fn open() -> Result<(), CudaError> {
    const LIBRARY: &str = if cfg!(target_os = "macos") { "libtorch_cuda.dylib" } else { "libtorch_cuda.so" };
    // What libtorch loads by its bare name when it first needs it, which the loader finds if it is there already. The last
    // one needs the driver.
    const LATER: [&str; 2] = ["libtorch_cuda_linalg.so", "libcaffe2_nvrtc.so"];
    let mut why = match load(Path::new(LIBRARY)) {
        Ok(()) => return Ok(()),
        Err(why) => why,
    };
    let named = std::env::var_os("LIBTORCH").map(|dir| Path::new(&dir).join("lib"));
    for folder in [named, cuda_folder()].into_iter().flatten().filter(|folder| folder.join(LIBRARY).exists())
    {
        match load(&folder.join(LIBRARY)) {
            Ok(()) => {
                for library in LATER.map(|name| folder.join(name)) {
                    let _ = load(&library);
                }
                return Ok(());
            }
            Err(found) => why = found,
        }
    }
    Err(CudaError::NoLibrary(why))
}

/// Loads a library for good, its symbols for all.
#[cfg(unix)]
fn load(path: &Path) -> Result<(), String> {
    use std::ffi::{CStr, CString};
    use std::os::unix::ffi::OsStrExt;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| path.display().to_string())?;
    // SAFETY: a NUL-terminated path; the library's initialisers are libtorch's and NVIDIA's own. It is never closed, and
    // the loader's message is copied before anything else is asked of it.
    unsafe {
        if !libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return Ok(());
        }
        let message = libc::dlerror();
        Err(if message.is_null() {
            path.display().to_string()
        } else {
            CStr::from_ptr(message).to_string_lossy().into_owned()
        })
    }
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

/// The newest CUDA that the driver supports, `(13, 0)`, whether there is a device or not.
///
/// # Errors
/// [`CudaError::NoLibrary`] without a driver.
pub fn cuda_driver() -> Result<(i32, i32), CudaError> {
    driver::version()
}

#[cfg(unix)]
mod driver {
    use super::{CudaDevice, CudaError};
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use std::mem::transmute;

    // As `cuda.h` declares them; 0 is success.
    type Version = unsafe extern "C" fn(version: *mut c_int) -> c_int;
    type Init = unsafe extern "C" fn(flags: c_uint) -> c_int;
    type Get = unsafe extern "C" fn(device: *mut c_int, ordinal: c_int) -> c_int;
    type Name = unsafe extern "C" fn(name: *mut c_char, length: c_int, device: c_int) -> c_int;
    type Memory = unsafe extern "C" fn(bytes: *mut usize, device: c_int) -> c_int;

    /// The driver's library, once loaded never closed.
    struct Driver(*mut c_void);

    impl Driver {
        fn open() -> Result<Self, CudaError> {
            // SAFETY: a NUL-terminated name.
            let driver = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
            if driver.is_null() { Err(CudaError::NoLibrary("libcuda.so.1".into())) } else { Ok(Self(driver)) }
        }

        fn find(&self, name: &CStr) -> Result<*mut c_void, CudaError> {
            // SAFETY: an open library and a NUL-terminated name.
            let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
            if found.is_null() {
                Err(CudaError::NoLibrary(name.to_string_lossy().into_owned()))
            } else {
                Ok(found)
            }
        }
    }

    pub fn version() -> Result<(i32, i32), CudaError> {
        let ask = Driver::open()?.find(c"cuDriverGetVersion")?;
        let mut version = 0;
        // SAFETY: the driver's function, found by name, with the signature that its header has, and a place for its answer.
        match unsafe { transmute::<*mut c_void, Version>(ask)(&mut version) } {
            0 => Ok((version / 1000, version % 1000 / 10)),
            _ => Err(CudaError::NoDevice),
        }
    }

    pub fn device(index: usize) -> Result<CudaDevice, CudaError> {
        let driver = Driver::open()?;
        let find = |name| driver.find(name);
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

    pub fn version() -> Result<(i32, i32), CudaError> {
        Err(CudaError::NoLibrary("asking the driver is not supported on this system".into()))
    }

    pub fn device(_: usize) -> Result<CudaDevice, CudaError> {
        Err(CudaError::NoLibrary("asking the driver is not supported on this system".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libtorch_of_this_process_is_known() {
        let _ = tch::Tensor::from(1.0); // links it
        if cfg!(target_os = "linux") {
            let cpu = loaded("libtorch_cpu").unwrap();
            let folder = cuda_folder().unwrap();
            let libtorch = cpu.parent().and_then(Path::parent).unwrap();
            assert_eq!(folder, PathBuf::from(format!("{}-cuda/torch/lib", libtorch.display())));
        }
        assert_eq!(loaded("libtorch_cp"), None);
    }
}
