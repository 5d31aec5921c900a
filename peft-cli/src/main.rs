//! `peft`.

use std::process::ExitCode;

fn main() -> ExitCode {
    peft_cli::main(std::env::args_os())
}
