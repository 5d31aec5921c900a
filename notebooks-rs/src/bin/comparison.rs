//! Lesson 000, section 2.6 Side-by-Side Comparison.

use std::process::ExitCode;

fn main() -> ExitCode {
    notebooks_rs::main("Lesson 000, 2.6 Side-by-Side Comparison", notebooks_rs::lesson000::comparison)
}
