//! Lesson 001, section 4.1 Prefix Tuning.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_prefix")
}
