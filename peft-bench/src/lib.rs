//! All methods of `peft-core` on identical data.
//!
//! `peft-bench` runs them, each run in a process of its own: one that crashes or diverges is a row that says so, and
//! its memory is its own. [`sweep::Sweep`] does the same for other programs, in processes or in theirs.

pub mod cases;
pub mod cli;
pub mod driver;
pub mod figures;
pub mod job;
pub mod mixed;
pub mod record;
pub mod results;
pub mod sweep;
pub mod synthetic;
pub mod table;
pub mod task;
pub mod text;
pub mod worker;
