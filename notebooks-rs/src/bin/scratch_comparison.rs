//! Lesson 002, section 9.6 Compare PEFT Methods.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("scratch_comparison")
}
