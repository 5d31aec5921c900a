//! Lesson 004, section 1 The Core Mathematical Idea.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("depth_arithmetic")
}
