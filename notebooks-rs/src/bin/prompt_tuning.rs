//! Lesson 000, section 2.4 Prompt Tuning.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("prompt_tuning")
}
