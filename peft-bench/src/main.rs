//! Runs every method on identical data and prints one table.

use clap::Parser;
use peft_bench::{cli::Options, driver, exit, worker};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit(if worker::asked() { worker::main() } else { driver::run(&Options::parse()) })
}
