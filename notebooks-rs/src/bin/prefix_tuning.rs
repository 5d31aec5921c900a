//! Lesson 000, section 2.5 Prefix Tuning.

use std::process::ExitCode;

fn main() -> ExitCode {
    notebooks_rs::main("Lesson 000, 2.5 Prefix Tuning", notebooks_rs::lesson000::prefix_tuning)
}
