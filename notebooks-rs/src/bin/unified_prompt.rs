//! Lesson 001, section 4.2 Prompt Tuning.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_prompt")
}
