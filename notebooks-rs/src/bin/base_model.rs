//! Lesson 000, section 2.1 Base Model Setup.

use std::process::ExitCode;

fn main() -> ExitCode {
    notebooks_rs::main("Lesson 000, 2.1 Base Model Setup", notebooks_rs::lesson000::base_model)
}
