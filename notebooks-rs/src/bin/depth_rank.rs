//! Lesson 004, section 1 The Background.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("depth_rank")
}
