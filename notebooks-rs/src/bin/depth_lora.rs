//! Lesson 004, section 1 Initialization Strategy.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("depth_lora")
}
