//! Lesson 001, section 1.2 PEFT Method Classification.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_taxonomy")
}
