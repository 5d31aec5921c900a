//! Trainings that are killed, again and again, and gone on with.

use crate::random::Random;
use crate::reliability::Trial;
use crate::reliability::trial::{Ended, whole};
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What kills came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub kills: usize,
    /// Of these, such that left a checkpoint half written.
    pub in_saving: usize,
    /// Such that left one half removed.
    pub in_removing: usize,
    /// Such that left another file half written: the adapter, the recipe, the metrics.
    pub in_writing: usize,
    /// Such before there was any checkpoint.
    pub early: usize,
    /// Trainings that came to their end, all of them the same.
    pub ended: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, in_saving, in_removing, in_writing, early, ended } = self;
        write!(
            f,
            "{kills} kills: {early} before the first checkpoint, {in_saving} left one half written, {in_removing} one half \
             removed, {in_writing} another file half written; {ended} trainings came to their end, each the undisturbed one \
             to the byte"
        )
    }
}

/// Kills trainings of the trial until there were so many kills, goes on with each to its end, and compares that with an
/// undisturbed one. Every other kill comes at a random moment of the whole child, start and end included; the others at one
/// soon after a checkpoint was begun. Nothing is ever repaired in between.
pub fn kills(trial: &Trial, count: usize, seed: u64, mut say: impl FnMut(&Tally)) -> Result<Tally> {
    let begun = Instant::now();
    let undisturbed = trial.undisturbed(&trial.path("undisturbed"))?;
    let duration = begun.elapsed();
    let (mut random, mut tally) = (Random::new(seed), Tally::default());
    while tally.kills < count {
        let out = trial.path(&format!("killed-{}", tally.ended));
        loop {
            let mut child = trial.train(&out, &["--resume", "--quiet"]);
            if tally.kills == count {
                // The last training is let go to its end.
                Trial::ended(&child.output()?, 0, &[])?;
                break;
            }
            if !kill(child.spawn()?, &out, tally.kills % 2 == 1, duration, &mut random)? {
                break;
            }
            tally.kills += 1;
            tally.look(&out).with_context(|| format!("after kill {}", tally.kills))?;
            say(&tally);
        }
        Ended::read(&out)?.check(&undisturbed).with_context(|| format!("{tally}"))?;
        tally.ended += 1;
        fs::remove_dir_all(&out)?;
    }
    Ok(tally)
}

/// Kills a child, unless it ends before its time has come; whether it was killed.
fn kill(
    mut child: Child,
    out: &Path,
    in_saving: bool,
    duration: Duration,
    random: &mut Random,
) -> Result<bool> {
    let begun = Instant::now();
    let until = duration.mul_f64(random.share() * 1.2);
    // How many checkpoints are begun before the kill, and how long it then waits: as long as writing one takes, or less.
    let (mut begins, wait) = (1 + random.below(6), Duration::from_micros(random.below(4000) as u64));
    let mut was = false;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "a child that nobody killed ended with {status}");
            return Ok(false);
        }
        if in_saving {
            let is = half(out, "partial")?;
            begins -= usize::from(is && !was);
            was = is;
        }
        if (in_saving && begins == 0) || (!in_saving && begun.elapsed() >= until) {
            if in_saving {
                sleep(wait);
            }
            child.kill()?;
            // It may have ended just before.
            return Ok(!child.wait()?.success());
        }
        sleep(Duration::from_micros(if in_saving { 100 } else { 1000 }));
    }
}

/// Whether there is a checkpoint that is half written (`partial`) or half removed (`old`).
fn half(out: &Path, ending: &str) -> Result<bool> {
    let Ok(entries) = fs::read_dir(out.join("checkpoints")) else { return Ok(false) };
    let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.any(|name| name.starts_with(".checkpoint-") && name.ends_with(ending)))
}

impl Tally {
    /// Counts what a kill has left, which must be nothing that is taken for a checkpoint and is none.
    fn look(&mut self, out: &Path) -> Result<()> {
        self.early += usize::from(whole(out)? == 0);
        self.in_saving += usize::from(half(out, ".partial")?);
        self.in_removing += usize::from(half(out, ".old")?);
        let Ok(entries) = fs::read_dir(out) else { return Ok(()) };
        let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        self.in_writing += usize::from(names.any(|name| name.starts_with('.') && name != ".lock"));
        Ok(())
    }
}

/// Lines of `metrics.jsonl` so far.
pub(super) fn lines(out: &Path) -> usize {
    fs::read(out.join("metrics.jsonl")).map_or(0, |all| all.iter().filter(|b| **b == b'\n').count())
}

/// Starts a child, and waits until it has written so many lines of metrics.
pub(super) fn at_line(command: &mut Command, out: &Path, line: usize) -> Result<Child> {
    let mut child = command.spawn()?;
    while lines(out) < line {
        ensure!(child.try_wait()?.is_none(), "the child ended before it had written {line} lines");
        sleep(Duration::from_micros(300));
    }
    Ok(child)
}
