//! Lesson 000, section 2.7 Key Takeaways.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("takeaways")
}
