//! Lesson 001, section 1.1 Why PEFT?.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_memory")
}
