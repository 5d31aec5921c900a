//! Lesson 000, section 2.6 Side-by-Side Comparison.

fn main() -> std::process::ExitCode {
    // Its runs are processes of their own: this program once more.
    if peft_bench::worker::asked() {
        return peft_core::program::exit(peft_bench::worker::main());
    }
    notebooks_rs::main("comparison")
}
