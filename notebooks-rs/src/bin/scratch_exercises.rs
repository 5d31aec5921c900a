//! Lesson 002, section 9.6 Exercises.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("scratch_exercises")
}
