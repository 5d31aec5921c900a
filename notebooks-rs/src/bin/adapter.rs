//! Lesson 000, section 2.2 Adapter-Based Fine-Tuning.

use std::process::ExitCode;

fn main() -> ExitCode {
    notebooks_rs::main("Lesson 000, 2.2 Adapter-Based Fine-Tuning", notebooks_rs::lesson000::adapter)
}
