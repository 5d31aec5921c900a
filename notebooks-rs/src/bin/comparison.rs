//! Lesson 000, section 2.6 Side-by-Side Comparison.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("comparison")
}
