//! Lesson 001, section 2.3 DoRA (Weight-Decomposed Low-Rank Adaptation).

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_dora")
}
