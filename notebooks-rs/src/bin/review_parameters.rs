//! Lesson 003, section 1 Understanding PEFT: Why Do We Need It?

fn main() -> std::process::ExitCode {
    notebooks_rs::main("review_parameters")
}
