//! Lesson 003, section 6 Implementing PEFT for Code Review Task.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("review_model")
}
