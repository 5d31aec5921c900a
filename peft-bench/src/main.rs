//! Runs every method on identical data and prints one table.

use clap::Parser;
use peft_bench::{cli::Options, driver, exit, worker};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    exit(if options.worker { worker::main() } else { driver::run(&options) })
}
