//! The directory of a run: whose it is, and what is in it.

use crate::common::same;
use anyhow::{Context, Result, bail, ensure};
use peft_core::hub;
use peft_core::io::{IfExists, adapter};
use peft_core::methods::catalogue::{Entry, Merges};
use peft_core::train::Checkpoints;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What becomes of a directory that holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    New,
    /// The run in it goes on; where there is none, it begins.
    Resume,
    /// The run in it is taken away.
    Overwrite,
}

const LOCK: &str = ".lock";
/// The recipe, as it was resolved from file and flags.
pub const RECIPE: &str = "run.toml";
/// What a user's own recipe may be called, in the directory of its run.
const OWN: &str = "recipe.toml";
const CHECKPOINTS: &str = "checkpoints";
pub const REPORT: &str = "report.html";

/// The directory of a run, which no other process writes to as long as this lives.
#[derive(Debug)]
pub struct Place {
    pub dir: PathBuf,
    /// The lock goes with the handle, however the process ends.
    _lock: File,
}

impl Place {
    /// Takes the directory for this process.
    ///
    /// # Errors
    /// Another process that has it; something in it, unless the mode says what becomes of that; a place that cannot be
    /// written to.
    pub fn open(dir: &Path, mode: Mode) -> Result<Self> {
        let named = || dir.display().to_string();
        if dir.is_file() {
            bail!("{}: is a file, expected a directory for the run", named());
        }
        fs::create_dir_all(dir).with_context(named)?;
        let path = dir.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.with_context(|| path.display().to_string())?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    bail!(
                        "{}: another process is training here; wait for it, or choose another output",
                        named()
                    )
                }
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Interrupted => {}
                // A file system without locks: there is nothing more to be done.
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => break,
                Err(TryLockError::Error(e)) => return Err(e).with_context(|| path.display().to_string()),
            }
        }
        let place = Self { dir: dir.to_owned(), _lock: lock };
        let first = place.holds()?;
        if let (Mode::Resume | Mode::Overwrite, Some(first)) = (mode, &first)
            && !place.is_run()
        {
            bail!(
                "{}: holds something ({first}), and no run ({RECIPE} is missing); choose another output",
                named()
            );
        }
        if let (Mode::New, Some(first)) = (mode, first) {
            bail!(
                "{}: holds something already ({first}); --resume goes on with a run that is there, --overwrite takes it \
                 away, or choose another output",
                named()
            );
        }
        Ok(place)
    }

    /// Something that is there.
    fn holds(&self) -> Result<Option<String>> {
        let entries = fs::read_dir(&self.dir).with_context(|| self.dir.display().to_string())?;
        for entry in entries {
            let name = entry?.file_name();
            if name != LOCK && name != OWN {
                return Ok(Some(name.to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }

    /// Takes away what a run has written, and nothing else; the adapter stays until there is another one. To be done when
    /// everything for the new run is there.
    pub fn clear(&self) -> Result<()> {
        let gone = |path: &Path, removed: std::io::Result<()>| match removed {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| path.display().to_string()),
            _ => Ok(()),
        };
        for path in Checkpoints::new(self.checkpoints()).all()?.into_values() {
            gone(&path, fs::remove_dir_all(&path))?;
        }
        let page = self.dir.join(REPORT);
        gone(&page, fs::remove_file(&page))
    }

    /// Whether a run has written here: its recipe is the first thing that it writes.
    fn is_run(&self) -> bool {
        self.dir.join(RECIPE).exists()
    }

    /// Refuses to begin anew, unasked, where a run has come further than its checkpoints tell: whole ones that are gone or
    /// broken, an adapter that is there.
    pub fn check_begun(&self, whole: bool, torn: usize) -> Result<()> {
        let dir = self.dir.display();
        ensure!(
            whole || torn == 0,
            "{dir}: none of the {torn} checkpoints is whole; --overwrite begins anew"
        );
        ensure!(
            whole || !self.dir.join(adapter::CONFIG).exists(),
            "{dir}: there is an adapter, and no checkpoint to go on from; --overwrite begins anew"
        );
        Ok(())
    }

    /// Refuses, before hours of work, a merged model that cannot be written or would be in the place of another one.
    pub fn check_merge(&self, method: &Entry, out: Option<&Path>, mode: Mode) -> Result<()> {
        let Some(out) = out else { return Ok(()) };
        ensure!(
            method.merges != Merges::No,
            "merge: {} is no change of weights, and cannot be folded in",
            method.title
        );
        // What a run that goes on finds there is its own.
        hub::writable(out, IfExists::overwrite(mode != Mode::New)).context("merge")?;
        ensure!(!same(out, &self.dir), "merge: {} is the directory of the run", out.display());
        Ok(())
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.dir.join(CHECKPOINTS)
    }
}

/// A start that failed leaves nothing behind.
impl Drop for Place {
    fn drop(&mut self) {
        if matches!(self.holds(), Ok(None)) {
            let _ = fs::remove_file(self.dir.join(LOCK));
            let _ = fs::remove_dir(&self.dir); // it fails where there is something in it, and should
        }
    }
}
