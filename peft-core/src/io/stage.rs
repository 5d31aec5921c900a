//! The folder `.<gate>.saving`, in which files wait for their places, and its log.

use crate::error::{Error, Result};
use crate::io::folder::{Folder, is_there};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// Name of the log.
const LOG: &str = "log";

/// What belongs together.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Log {
    /// Whether a gate was there, which is moved aside first.
    pub(crate) replaces: bool,
    /// Those to put in their places before the gate.
    pub(crate) files: Vec<String>,
    /// Those of the old that the new has not.
    pub(crate) remove: Vec<String>,
}

/// The folder in which files wait.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) dir: PathBuf,
    pub(crate) gate: OsString,
    pub(crate) path: PathBuf,
}

impl Stage {
    pub(crate) fn new(dir: &Path, gate: &OsStr) -> Self {
        let mut name = OsString::from(".");
        name.push(gate);
        name.push(".saving");
        Self { dir: dir.to_owned(), gate: gate.to_owned(), path: dir.join(name) }
    }

    pub(crate) fn gate(&self) -> PathBuf {
        self.dir.join(&self.gate)
    }

    pub(crate) fn new_file(&self, name: &OsStr) -> PathBuf {
        let mut name = name.to_owned();
        name.push(".new");
        self.path.join(name)
    }

    pub(crate) fn old_gate(&self) -> PathBuf {
        let mut name = self.gate.clone();
        name.push(".old");
        self.path.join(name)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        Folder::open(&self.path)?.sync()
    }

    /// The log, as its only owner.
    pub(crate) fn claim(&self) -> Result<File> {
        let path = self.path.join(LOG);
        let file = |e| Error::file(self.gate(), e);
        // Again only where another one has ended in between.
        for _ in 0..10_000 {
            match fs::create_dir(&self.path) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(file(e)),
                _ => {}
            }
            let (log, fresh) = match File::create_new(&path) {
                Ok(log) => (log, true),
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    match File::options().read(true).write(true).open(&path) {
                        Err(e) if e.kind() == ErrorKind::NotFound => continue,
                        log => (log.map_err(file)?, false),
                    }
                }
                Err(e) => return Err(file(e)),
            };
            match lock(&log) {
                Err(e) if !fresh => {
                    let message = format!(
                        "somebody is saving here, or was killed while saving, and this file system has no locks that \
                         would tell ({e}): wait, or remove {} and save again",
                        self.path.display()
                    );
                    return Err(Error::format(&self.dir, message));
                }
                // Made just now, by nobody else.
                Err(_) => return Ok(log),
                Ok(()) if is_at(&log, &path) => return Ok(log),
                Ok(()) => {}
            }
        }
        Err(Error::format(&self.path, "cannot be made: others make and remove it all the time"))
    }

    /// The log of a save that is decided, but not at its end: a configuration is still waiting.
    pub(crate) fn unfinished(&self) -> Option<Log> {
        let log: Log = serde_json::from_slice(&fs::read(self.path.join(LOG)).ok()?).ok()?;
        let own = |name: &String| {
            matches!(Path::new(name).components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)])
        };
        let decided = !log.replaces || self.old_gate().exists();
        let waits = self.new_file(&self.gate).exists();
        // A gate that is there is somebody else's, who has saved since: theirs is the newer one.
        let decided = decided && waits && !is_there(&self.gate());
        (decided && log.files.iter().chain(&log.remove).all(own)).then_some(log)
    }

    /// Removes what waits here.
    pub(crate) fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path).map_err(|e| Error::file(&self.path, e))? {
            let path = entry.map_err(|e| Error::file(&self.path, e))?.path();
            if !path.ends_with(LOG) {
                gone(fs::remove_file(&path)).map_err(|e| Error::file(&path, e))?;
            }
        }
        Ok(())
    }

    /// Removes the folder. What cannot be removed changes nothing, and is tried again by the next save.
    pub(crate) fn end(&self) {
        let _ = self.clear();
        let _ = fs::remove_file(self.path.join(LOG));
        let _ = fs::remove_dir(&self.path);
    }
}

/// Nothing to remove is as good as removed.
pub(crate) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Waits for the lock.
fn lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Whether `path` still is that file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |m: fs::Metadata| (m.dev(), m.ino());
    matches!((file.metadata().map(id), fs::metadata(path).map(id)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}
