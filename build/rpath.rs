//! The build script of every package with binaries or tests: they find libtorch by themselves,
//! not only under `cargo run`.

fn main() {
    println!("cargo::rerun-if-changed=../build/rpath.rs");
    // torch-sys (`links = "tch"`) tells its direct dependents which libtorch was chosen, whoever chose it.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // RUNPATH and not RPATH: LD_LIBRARY_PATH still has the last word.
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags");
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
}
