//! Lesson 003, section 5 Comparing LoRA vs Prefix-tuning for Code Review.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("review_results")
}
