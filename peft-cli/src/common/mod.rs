//! What commands share: where it is computed, models with their adapters, numbers on the command line.

mod adapters;
mod bytes;
mod fields;
mod task;
pub mod verify;

pub use adapters::{Adapters, Fit, Given, Opened, adapter_name, open, open_for, options};
pub use bytes::Bytes;
pub use fields::{Field, map};
pub use task::kind;

use anyhow::Result;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use peft_core::Peft;
use peft_core::device::{DeviceChoice, Threads};
use peft_core::tch::Device;
use std::path::Path;

/// Where it is computed.
#[derive(Debug, Clone, Args)]
pub struct Machine {
    /// Device: cpu, cuda, cuda:N, auto
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// CPU threads: a number, or auto
    #[arg(long, default_value_t)]
    pub threads: Threads,
}

impl Machine {
    /// The device. This is the first thing that a command asks of libtorch.
    pub fn device(&self) -> Result<Device> {
        Ok(self.device.open()?)
    }

    /// Sets the number of threads, as it suits the model.
    pub fn threads(&self, peft: &Peft) -> Result<()> {
        self.threads.set(peft.report(&[])?.all);
        Ok(())
    }
}

/// A table whose columns from `numbers` on are of numbers, on the right.
pub fn table<const N: usize>(header: [&str; N], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Whether two paths lead to one directory.
pub fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
