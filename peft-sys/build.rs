//! Compiles `csrc` against the libtorch that torch-sys chose.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=csrc");
    // Absent on a documentation build without libtorch: then there is nothing to link either.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    let lib = PathBuf::from(lib);
    let include =
        std::env::var("LIBTORCH_INCLUDE").map_or_else(|_| lib.join(".."), PathBuf::from).join("include");
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    let windows = std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("windows");
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++17")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .define("GLOG_USE_GLOG_EXPORT", None)
        .flag_if_supported("-fvisibility=hidden")
        // Python rounds after the multiplication and after the addition.
        .flag_if_supported("-ffp-contract=off")
        // A debug build of Rust runs its kernels at full speed all the same.
        .opt_level(2)
        .file("csrc/shim.cpp")
        .file("csrc/generator.cpp")
        .file("csrc/nf4.cpp")
        .file("csrc/recompute.cpp")
        .compile("peft_shim");
    println!("cargo::rustc-link-search=native={}", lib.display());
    for name in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib={name}");
    }
    if !windows {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
