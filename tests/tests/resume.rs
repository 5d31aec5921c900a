//! Training that is stopped and gone on with: in another process, in the middle of an epoch, with dropout and accumulation.

use anyhow::{Context, Result, ensure};
use peft_core::io::tensors;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tests::resume::{AFTER, BEFORE, END, begin, place, weights};
use tests::subject::{Bert, Gpt2, Llama, Qwen2, Subject, Tiny, every_row, verdict};
use tests::table::Row;
use tests::{assert_bits, same_bits};

static ROOT: OnceLock<PathBuf> = OnceLock::new();

fn root() -> &'static Path {
    ROOT.get().map_or(Path::new(""), PathBuf::as_path)
}

/// Takes the first steps, and saves.
fn first_half<M: Subject>(row: &Row) -> Result<()> {
    let (_peft, mut run) = begin::<M>(row)?;
    for _ in 0..BEFORE {
        run.step()?;
    }
    Ok(run.save(place::<M>(root(), row), &[])?)
}

/// Catches whatever is not saved: an average, a mask, a moment, the place in the data, the state of the generator.
fn resumed<M: Subject>(row: &Row) -> Result<()> {
    let (peft, mut run) = begin::<M>(row)?;
    for _ in 0..BEFORE {
        run.step()?;
    }
    let half = weights(&peft)?;
    for _ in 0..AFTER {
        run.step()?;
    }
    let expected = weights(&peft)?;
    let found = tensors::read(place::<M>(root(), row).join(END))?;
    ensure!(found.keys().eq(expected.keys()), "other tensors");
    expected.iter().try_for_each(|(name, t)| assert_bits(name, &found[name], t))?;

    // With the weights alone it is another training.
    let (peft, mut run) = begin::<M>(row)?;
    half.iter().try_for_each(|(name, t)| peft.params("a")?.assign(name, t))?;
    for _ in 0..AFTER {
        run.step()?;
    }
    let restarted = weights(&peft)?;
    ensure!(
        expected.iter().any(|(name, t)| !same_bits(&restarted[name], t)),
        "a restart is no other training"
    );
    Ok(())
}

fn each(laws: [fn(&Row) -> Result<()>; 5]) -> Result<()> {
    let [tiny, bert, gpt2, llama, qwen2] = laws;
    let all = [
        every_row::<Tiny>(tiny),
        every_row::<Bert>(bert),
        every_row::<Gpt2>(gpt2),
        every_row::<Llama>(llama),
        every_row::<Qwen2>(qwen2),
    ];
    verdict(&all.concat())
}

#[test]
fn a_resumed_run_is_the_same_to_the_bit() -> Result<()> {
    let _serial = tests::serial();
    let work = tempfile::tempdir()?;
    ROOT.get_or_init(|| work.path().to_owned());
    each([
        first_half::<Tiny>,
        first_half::<Bert>,
        first_half::<Gpt2>,
        first_half::<Llama>,
        first_half::<Qwen2>,
    ])?;
    let other =
        Command::new(env!("CARGO_BIN_EXE_resume")).arg(work.path()).output().context("the other process")?;
    ensure!(other.status.success(), "{}", String::from_utf8_lossy(&other.stderr));
    each([resumed::<Tiny>, resumed::<Bert>, resumed::<Gpt2>, resumed::<Llama>, resumed::<Qwen2>])
}
