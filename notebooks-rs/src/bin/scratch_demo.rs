//! Lesson 002, section 9.6 Running the Demo.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("scratch_demo")
}
