//! Lesson 004, section 2 DoRA (announced; the document ends before it).

fn main() -> std::process::ExitCode {
    notebooks_rs::main("depth_dora")
}
