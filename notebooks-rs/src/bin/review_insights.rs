//! Lesson 003, section 7 Key Insights and Takeaways.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("review_insights")
}
