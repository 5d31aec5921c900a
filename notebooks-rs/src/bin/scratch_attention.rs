//! Lesson 002, section 9.6 Apply LoRA to Attention.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("scratch_attention")
}
