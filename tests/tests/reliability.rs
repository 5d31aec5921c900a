//! Short forms of what `reliability` does to trainings.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::Duration;
use tests::hostile;
use tests::reliability::{self, Room, Trial};

const PROGRAM: &str = env!("CARGO_BIN_EXE_reliability");

#[test]
fn a_killed_training_goes_on_to_the_same_end() -> Result<()> {
    let tally = reliability::kills(&Trial::new(PROGRAM, "bert")?, 8, 1, |_| {})?;
    println!("{tally}");
    Ok(())
}

#[test]
fn a_training_stops_when_it_is_asked_to() -> Result<()> {
    let trial = Trial::new(PROGRAM, "llama")?;
    let undisturbed = trial.undisturbed(&trial.path("undisturbed"))?;
    reliability::stopped(&trial, Signal::SIGTERM, &undisturbed)?;
    reliability::stopped(&trial, Signal::SIGINT, &undisturbed)?;
    reliability::stopped_twice(&trial, &undisturbed)
}

#[test]
fn what_is_missing_or_has_no_room_is_said_and_nothing_is_lost() -> Result<()> {
    let trial = Trial::new(PROGRAM, "bert")?;
    let undisturbed = trial.undisturbed(&trial.path("undisturbed"))?;
    reliability::limited(&trial, &[0, 7, 24], &undisturbed)?;
    reliability::missing(&trial)?;
    let room = Room::new(trial.path("room"), 512);
    if let Err(e) = &room {
        println!("no file system of its own ({e}): a read-only one is not tried");
    }
    reliability::unwritable(&trial, room.as_ref().ok(), &undisturbed)
}

/// In a process of its own: the memory of this one is that of other tests, too.
#[test]
fn memory_is_flat() -> Result<()> {
    let done = Command::new(PROGRAM).args(["soak", "--steps", "1000"]).output().context("soak")?;
    println!("{}", String::from_utf8_lossy(&done.stdout));
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Each test run opens the same ones: a failure has a number, by which `reliability hostile --only` does it again.
#[test]
fn hostile_inputs_are_refused_or_harmless() -> Result<()> {
    let report = hostile::run(PROGRAM.as_ref(), 1, 100, 318, Duration::from_secs(30))?;
    println!("{report}");
    ensure!(report.faults.is_empty(), "{report}");
    Ok(())
}
