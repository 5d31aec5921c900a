//! Lesson 004, section 3 Adapter Methods (announced; the document ends before them).

fn main() -> std::process::ExitCode {
    notebooks_rs::main("depth_adapter")
}
