//! Saves are killed at each system call that changes something on disk; `target/debug/kills` does it at every call, and
//! prints what was left.

use anyhow::{Result, ensure};
use std::path::Path;
use tests::kills::{Found, Scene, Stage};

/// Kills at all of them, and sees that the outcome turns from the old to the new once.
fn kill_everywhere(scene: Scene, before: Found) -> Result<()> {
    let kills = Path::new(env!("CARGO_BIN_EXE_kills"));
    let stage = Stage::new(scene)?;
    let calls = stage.calls(kills)?;
    // Between the first and the last part of a file there is nothing new.
    let middle = |n: usize| {
        let same = |m: Option<usize>| m.is_some_and(|m| calls.get(m) == calls.get(n));
        calls[n].name == "write" && same(n.checked_sub(1)) && same(n.checked_add(1))
    };
    let moments = (0..calls.len()).filter(|n| calls[*n].changes_files() && !middle(*n));
    let moments: Vec<usize> = moments.chain([calls.len()]).collect();
    let mut last = before;
    for n in &moments {
        let outcome = stage.kill(kills, *n)?;
        ensure!(outcome.others != Found::Old || outcome.loaded == Found::Old, "{outcome:?}");
        ensure!(outcome.loaded == before || outcome.loaded == Found::New, "{outcome:?}");
        ensure!(last == before || outcome.loaded == Found::New, "back to the old: {outcome:?}");
        last = outcome.loaded;
    }
    ensure!(last == Found::New, "the save was never seen");
    ensure!(
        moments.len() > 7,
        "only {} moments: are the calls still known by name? {calls:?}",
        moments.len()
    );
    Ok(())
}

#[test]
fn an_adapter_over_one_of_another_rank() -> Result<()> {
    kill_everywhere(Scene::OtherRank, Found::Old)
}

#[test]
fn an_adapter_over_one_of_another_alpha() -> Result<()> {
    kill_everywhere(Scene::OtherAlpha, Found::Old)
}

#[test]
fn the_first_adapter_of_a_directory() -> Result<()> {
    kill_everywhere(Scene::First, Found::Nothing)
}

#[test]
fn a_model_over_one_in_shards() -> Result<()> {
    kill_everywhere(Scene::Model, Found::Old)
}

#[test]
fn a_single_file() -> Result<()> {
    kill_everywhere(Scene::File, Found::Old)
}

/// Who finishes what was killed can be killed as well.
#[test]
fn a_load_that_finishes_a_save() -> Result<()> {
    kill_everywhere(Scene::Finish, Found::New)
}
