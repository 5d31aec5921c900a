//! Lesson 002, section 9.6 Adapter Implementation.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("scratch_adapter")
}
