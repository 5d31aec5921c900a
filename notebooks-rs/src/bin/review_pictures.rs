//! Lesson 003, section 4 Visualizing How PEFT Methods Work.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("review_pictures")
}
