//! Lesson 003, section 2 Low-Rank Adaptation (LoRA) - Mathematical Foundation.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("review_lora")
}
