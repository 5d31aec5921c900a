//! Lesson 000, section 2.4 Prompt Tuning.

use std::process::ExitCode;

fn main() -> ExitCode {
    notebooks_rs::main("Lesson 000, 2.4 Prompt Tuning", notebooks_rs::lesson000::prompt_tuning)
}
