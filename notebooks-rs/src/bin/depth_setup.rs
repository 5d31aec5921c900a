//! Lesson 004, section 0 Basic Setup.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("depth_setup")
}
