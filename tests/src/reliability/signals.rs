//! Trainings that are asked to stop.

use crate::reliability::Trial;
use crate::reliability::kills::{at_line, lines};
use crate::reliability::trial::Ended;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peft_core::train::Checkpoints;
use std::path::Path;
use std::process::Child;

/// Stops a training by a signal: exit code 4, all of its steps in the newest checkpoint, and what it ends with once it has
/// gone on is what an undisturbed one ends with.
pub fn stopped(trial: &Trial, signal: Signal, undisturbed: &Ended) -> Result<()> {
    let out = trial.path(&format!("stopped-by-{signal}"));
    // In the middle of an epoch, and of the steps between two checkpoints.
    let child = at_line(&mut trial.train(&out, &[]), &out, 9)?;
    kill(pid(&child)?, signal)?;
    let said = Trial::ended(&child.wait_with_output()?, 4, &[])?;
    ensure!(said.contains("all is saved, and --resume goes on"), "{said}");
    let newest = Checkpoints::new(out.join("checkpoints")).newest()?.found.context("no checkpoint")?.0;
    let (events, _) = peft_cli::watch::events(&out)?;
    let last = events.iter().map(peft_cli::watch::Event::step).max();
    ensure!(last == Some(newest), "the last step is {last:?}, the newest checkpoint of {newest}");
    ensure!(newest < super::trial::STEPS, "it was at its end already");
    go_on(trial, &out, undisturbed)
}

/// Stops a training by two signals at once: exit code 130, and no harm done.
pub fn stopped_twice(trial: &Trial, undisturbed: &Ended) -> Result<()> {
    let out = trial.path("stopped-twice");
    let child = at_line(&mut trial.train(&out, &[]), &out, 9)?;
    // Both are there before it looks at one.
    for signal in [Signal::SIGSTOP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGCONT] {
        kill(pid(&child)?, signal)?;
    }
    Trial::ended(&child.wait_with_output()?, 130, &[])?;
    ensure!(lines(&out) >= 9, "what was recorded is gone");
    go_on(trial, &out, undisturbed)
}

fn go_on(trial: &Trial, out: &Path, undisturbed: &Ended) -> Result<()> {
    Trial::ended(&trial.train(out, &["--resume"]).output()?, 0, &[])?;
    Ended::read(out)?.check(undisturbed)
}

fn pid(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(child.id().try_into()?))
}
