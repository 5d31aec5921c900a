//! Lesson 001, section 5 Using HuggingFace PEFT.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_training")
}
