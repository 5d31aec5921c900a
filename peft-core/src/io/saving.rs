//! Files of one directory that are one thing, and are saved as one: an adapter's two, a model's, or a single file.
//!
//! One of them, the *gate*, is the file without which nobody finds anything there: the configuration. The new files are
//! written into a folder of their own, `.<gate>.saving`, and flushed to disk. Then a log there says what belongs together,
//! the old gate is moved aside, the others are put in their places, and the gate last. So whoever reads the directory,
//! this crate or another, finds all of the old, all of the new, or nothing; never some of each. Moving the old gate aside
//! decides: what was killed before that is thrown away by the next save, and what was killed after it is finished by the
//! next save or the next reader ([`settle`]).
//!
//! The log is locked as long as its writer lives, so a second one waits, and what is left of a dead one is known as such.

use crate::error::{Error, Result};
use crate::io::folder::{Folder, IfExists, Occupant, is_there};
use crate::io::stage::{Log, Stage, gone};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Files on their way to one directory. Dropped before [`Saving::commit`], it leaves no trace.
#[derive(Debug)]
pub(crate) struct Saving {
    stage: Stage,
    folder: Folder,
    log: File,
    what: Log,
    /// Whether what waits may no longer be thrown away.
    committed: bool,
}

impl Saving {
    /// Makes the directory if need be, waits for whoever is saving the same there, and finishes or clears what a killed
    /// one has left.
    pub(crate) fn begin(dir: &Path, gate: impl AsRef<OsStr>) -> Result<Self> {
        let stage = Stage::new(dir, gate.as_ref());
        let folder = Folder::make(dir)?;
        let log = stage.claim()?;
        // What is there may be another one's only copy, until it is in its place.
        let mut saving = Self { stage, folder, log, what: Log::default(), committed: true };
        if let Some(log) = saving.stage.unfinished() {
            saving.place(&log)?;
        }
        saving.committed = false;
        saving.stage.clear()?;
        saving.log.set_len(0).map_err(|e| Error::file(&saving.stage.path, e))?;
        Ok(saving)
    }

    /// As [`Saving::begin`], unless one of the files is in the way: those of its `own` kind where `if_exists` says so, those
    /// of the `other` in any case.
    pub(crate) fn begin_beside(
        dir: &Path,
        gate: &str,
        if_exists: IfExists,
        [own, other]: [Occupant; 2],
    ) -> Result<Self> {
        if_exists.check(dir, own, other)?;
        let saving = Self::begin(dir, gate)?;
        // Somebody else may have saved while this one waited.
        if_exists.check(dir, own, other)?;
        Ok(saving)
    }

    /// Writes one file and flushes it to disk, through the handle that `fill` gets. Its mode is the umask's, whatever
    /// the file has that it will replace.
    pub(crate) fn put(
        &mut self,
        name: impl AsRef<OsStr>,
        fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    ) -> Result<()> {
        let name = name.as_ref();
        let path = self.stage.dir.join(name);
        if path.is_dir() {
            return Err(Error::file(path, ErrorKind::IsADirectory.into()));
        }
        let file = File::create_new(self.stage.new_file(name)).map_err(|e| Error::file(&path, e))?;
        let mut out = BufWriter::new(file);
        fill(&mut out)?;
        let file = out.into_inner().map_err(|e| Error::file(&path, e.into_error()))?;
        file.sync_all().map_err(|e| Error::file(&path, e))?;
        if name != self.stage.gate {
            self.what.files.push(plain(name, &path)?);
        }
        Ok(())
    }

    /// Takes a file away that the old has and the new has not.
    pub(crate) fn remove(&mut self, name: &str) {
        if is_there(&self.stage.dir.join(name)) {
            self.what.remove.push(name.to_owned());
        }
    }

    /// The first of the files to come that is there already.
    pub(crate) fn replaced(&self) -> Option<PathBuf> {
        let names = self.what.files.iter().map(OsStr::new).chain([self.stage.gate.as_os_str()]);
        names.map(|name| self.stage.dir.join(name)).find(|path| is_there(path))
    }

    /// Puts the files in their places.
    ///
    /// # Errors
    /// What keeps the files from being placed. Where that happens half-way, the next save or reader goes on.
    pub(crate) fn commit(mut self) -> Result<()> {
        let mut what = std::mem::take(&mut self.what);
        if !(what.files.is_empty() && what.remove.is_empty()) {
            what.replaces = is_there(&self.stage.gate());
            // What the log speaks of is on disk before the log is.
            self.stage.sync()?;
            let text = serde_json::to_vec(&what).map_err(|e| Error::format(&self.stage.path, e))?;
            let mut log = &self.log;
            let written = log.write_all(&text).and_then(|()| self.log.sync_all());
            written.map_err(|e| Error::file(&self.stage.path, e))?;
            // With an old gate, it is moving that which decides; see `Stage::unfinished`.
            self.committed = !what.replaces;
            if what.replaces {
                rename(&self.stage.gate(), &self.stage.old_gate())?;
                self.committed = true;
            }
        }
        self.place(&what)?;
        self.committed = true;
        self.stage.end();
        Ok(())
    }

    /// Does what the log says, from wherever it was left. What is renamed before is on disk before what follows.
    fn place(&self, what: &Log) -> Result<()> {
        if what.replaces {
            self.stage.sync()?;
            self.folder.sync()?;
        }
        for name in &what.files {
            let (from, to) = (self.stage.new_file(OsStr::new(name)), self.stage.dir.join(name));
            if from.exists() || !to.exists() {
                rename(&from, &to)?;
            }
        }
        for name in &what.remove {
            let path = self.stage.dir.join(name);
            gone(fs::remove_file(&path)).map_err(|e| Error::file(&path, e))?;
        }
        if !(what.files.is_empty() && what.remove.is_empty()) {
            self.folder.sync()?;
        }
        rename(&self.stage.new_file(&self.stage.gate), &self.stage.gate())?;
        self.folder.sync()
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        if !self.committed {
            self.stage.end();
        }
    }
}

/// Finishes a save that was killed between the files of `dir`. Readers ask for that first.
///
/// # Errors
/// It cannot be finished, because the directory cannot be written to, for example.
pub(crate) fn settle(dir: &Path, gate: &str) -> Result<()> {
    if Stage::new(dir, OsStr::new(gate)).unfinished().is_none() {
        return Ok(());
    }
    // Beginning another one waits for a living writer, and finishes for a dead one.
    Saving::begin(dir, gate).map(drop).map_err(|e| {
        let message =
            "a save was interrupted between the files of this directory, and cannot be finished now";
        Error::format(dir, format!("{message} ({e}): load it where it can be written to, or save it again"))
    })
}

/// What `read` makes of the files in `dir`, all of one save: again if one came in between.
pub(crate) fn whole<T>(dir: &Path, gate: &str, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let path = dir.join(gate);
    loop {
        settle(dir, gate)?;
        let before = fs::read(&path).ok();
        let found = read();
        if fs::read(&path).ok() == before && Stage::new(dir, OsStr::new(gate)).unfinished().is_none() {
            return found;
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::file(to, e))
}

fn plain(name: &OsStr, path: &Path) -> Result<String> {
    name.to_str().map(str::to_owned).ok_or_else(|| Error::format(path, "is not a name in UTF-8"))
}
