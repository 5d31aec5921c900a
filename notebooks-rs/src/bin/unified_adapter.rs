//! Lesson 001, section 3.1 Bottleneck Adapters.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_adapter")
}
