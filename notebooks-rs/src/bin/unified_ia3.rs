//! Lesson 001, section 3.2 IA³ (Infused Adapter by Inhibiting and Amplifying Inner Activations).

fn main() -> std::process::ExitCode {
    notebooks_rs::main("unified_ia3")
}
