//! Lesson 001, section 6.1 Parameter Efficiency.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_parameters")
}
