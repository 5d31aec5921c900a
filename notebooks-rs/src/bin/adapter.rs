//! Lesson 000, section 2.2 Adapter-Based Fine-Tuning.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("adapter")
}
