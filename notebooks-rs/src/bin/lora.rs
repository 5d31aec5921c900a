//! Lesson 000, section 2.3 LoRA: Low-Rank Adaptation.

use std::process::ExitCode;

fn main() -> ExitCode {
    notebooks_rs::main("Lesson 000, 2.3 LoRA: Low-Rank Adaptation", notebooks_rs::lesson000::lora)
}
