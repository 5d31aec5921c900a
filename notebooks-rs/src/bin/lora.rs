//! Lesson 000, section 2.3 LoRA — Low-Rank Adaptation.

fn main() -> std::process::ExitCode {
    notebooks_rs::main("lora")
}
