//! Lesson 001, section 6.2 Performance Comparison.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_ranking")
}
