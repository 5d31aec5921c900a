//! Short forms of what `reliability` does to trainings.
#![cfg(target_os = "linux")]

use anyhow::Result;
use nix::sys::signal::Signal;
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
