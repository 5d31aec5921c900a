//! Lesson 003, section 3 Zero-init Attention Prefix-tuning - Mathematical Foundation.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("review_zero_init")
}
