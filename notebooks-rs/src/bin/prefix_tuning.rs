//! Lesson 000, section 2.5 Prefix Tuning.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("prefix_tuning")
}
