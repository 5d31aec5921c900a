//! Lesson 000, section 2.1 Base Model Setup.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("base_model")
}
