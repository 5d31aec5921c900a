//! Goes on with the runs that `tests/resume.rs` has saved in a directory, in a process of its own.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tests::resume::go_on;
use tests::subject::{Bert, Gpt2, Llama, Qwen2, Subject, Tiny, every_row, verdict};
use tests::table::Row;

static ROOT: OnceLock<PathBuf> = OnceLock::new();

fn law<M: Subject>(row: &Row) -> Result<()> {
    go_on::<M>(ROOT.get().map(PathBuf::as_path).unwrap_or(Path::new("")), row)
}

fn main() -> Result<()> {
    let root = std::env::args_os().nth(1).context("the directory of the runs")?;
    ROOT.get_or_init(|| root.into());
    let _serial = tests::serial();
    let all = [
        every_row::<Tiny>(law::<Tiny>),
        every_row::<Bert>(law::<Bert>),
        every_row::<Gpt2>(law::<Gpt2>),
        every_row::<Llama>(law::<Llama>),
        every_row::<Qwen2>(law::<Qwen2>),
    ];
    verdict(&all.concat())
}
