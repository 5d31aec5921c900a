//! Lesson 001, section 2.1 Mathematical Principle.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_lora")
}
