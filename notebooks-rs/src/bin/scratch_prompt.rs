//! Lesson 002, section 9.6 Prompt Tuning Implementation.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("scratch_prompt")
}
