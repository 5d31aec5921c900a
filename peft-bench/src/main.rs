//! Runs every method on identical data and prints one table.

use clap::Parser;
use peft_bench::{cli::Options, driver, worker};
use peft_core::program::exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    exit(if worker::asked() { worker::main() } else { driver::run(&Options::parse()) })
}
