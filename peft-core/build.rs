//! The run path: programs and tests find libtorch by themselves, not only under `cargo run`.
//!
//! Cargo hands link arguments on to nobody. So a package with programs has a build script that takes its own from here,
//! as `DEP_PEFT_LINK_ARG`, for which the manifest says `links`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // torch-sys (`links = "tch"`) says which libtorch was chosen, whoever chose it.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    let linux = std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux");
    // RUNPATH and not RPATH: LD_LIBRARY_PATH still has the last word.
    let kind = if linux { "--enable-new-dtags," } else { "" };
    let arg = format!("-Wl,{kind}-rpath,{lib}");
    println!("cargo::rustc-link-arg={arg}");
    println!("cargo::metadata=LINK_ARG={arg}");
}
