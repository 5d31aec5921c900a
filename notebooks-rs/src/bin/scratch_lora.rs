//! Lesson 002, section 9.6 LoRA Implementation.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("scratch_lora")
}
