//! What is done to trainings by `peft train`, and what they must stand: kills, signals, full disks, many steps.
//!
//! The training is a child process: the program runs itself again, with [`PEFT`] and what `peft` is to do as its arguments,
//! and [`as_peft`] is what it then is. So there is no other program to be built.

mod disk;
mod kills;
mod signals;
mod soak;
mod trial;

pub use disk::{Room, files, full, limited, missing, unwritable};
pub use kills::{Tally, kills};
pub use signals::{stopped, stopped_twice};
pub use soak::Soak;
pub use trial::{Ended, Trial};

use std::ffi::OsString;
use std::process::ExitCode;

/// The first argument of a program that is to be `peft`.
pub const PEFT: &str = "peft";

/// Runs `peft` if that is what the first argument asks for.
pub fn as_peft() -> Option<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    (arguments.first()? == PEFT).then(|| peft_cli::main(arguments))
}
