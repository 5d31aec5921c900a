//! Directories to write to.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What becomes of an adapter or a model that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfExists {
    /// It stays, and saving is [`Error::Occupied`].
    #[default]
    Refuse,
    /// It is replaced, as one: whoever reads the directory finds all of the old or all of the new.
    Replace,
}

impl IfExists {
    /// For a program's `--overwrite`.
    #[must_use]
    pub fn overwrite(yes: bool) -> Self {
        if yes { Self::Replace } else { Self::Refuse }
    }

    /// Refuses a directory that has one of these files. Those of the `other` are refused in any case: an adapter beside a
    /// model is one with it to transformers, which puts it in unasked.
    pub(crate) fn check(self, dir: &Path, own: Occupant, other: Occupant) -> Result<()> {
        let there = |(what, files): Occupant| {
            let path = files.iter().map(|name| dir.join(name)).find(|path| is_there(path))?;
            Some((what, path))
        };
        match (self, there(own), there(other)) {
            (Self::Refuse, Some((what, path)), _) | (Self::Refuse, None, Some((what, path))) => {
                Err(Error::Occupied { path, what })
            }
            (Self::Replace, _, Some((what, path))) => {
                let message = format!(
                    "is of {what}: transformers takes an adapter and a model in one directory for one; save to another"
                );
                Err(Error::format(path, message))
            }
            _ => Ok(()),
        }
    }
}

/// What a directory may be already, and the files that say so.
pub(crate) type Occupant = (&'static str, &'static [&'static str]);

/// Whether anything has that name, a link that leads nowhere included.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A directory's own handle: names in it are on disk once it is synced.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    handle: Option<File>,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // Elsewhere directories are no files that can be opened, and there is no such step.
        let handle = cfg!(unix).then(|| File::open(path)).transpose().map_err(|e| Error::file(path, e))?;
        Ok(Self { path: path.to_owned(), handle })
    }

    /// Makes the directory and those above it, on disk as well.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::create_dir_all(path).map_err(|e| match e.kind() {
            // A file, or a link that leads nowhere.
            ErrorKind::AlreadyExists => {
                Error::format(path, "is there already, and is no directory to save in")
            }
            _ => Error::file(path, e),
        })?;
        for parent in missing.iter().filter_map(|dir| dir.parent()) {
            Self::open(parent)?.sync()?;
        }
        Self::open(path)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        match self.handle.as_ref().map(File::sync_all) {
            // Some file systems have no such step either.
            Some(Err(e)) if !matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => {
                Err(Error::file(&self.path, e))
            }
            _ => Ok(()),
        }
    }
}
