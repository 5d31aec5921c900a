//! Lesson 001, section 6.3 Selection Guide.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_selection")
}
