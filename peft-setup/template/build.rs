//! The programs find libtorch wherever they are started: peft-core says how to link them.

fn main() {
    println!("cargo::rerun-if-env-changed=DEP_PEFT_LINK_ARG");
    if let Ok(arg) = std::env::var("DEP_PEFT_LINK_ARG") {
        println!("cargo::rustc-link-arg={arg}");
    }
}
