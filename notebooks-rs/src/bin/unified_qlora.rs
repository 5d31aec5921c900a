//! Lesson 001, section 2.2 QLoRA (Quantized LoRA).

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_qlora")
}
