//! Directories that are written whole or not at all, and say of themselves whether they are whole.
//!
//! A checkpoint is written into `.<name>.partial` beside its place, every file flushed to disk; `manifest.json`, the last of
//! them, has the length and the SHA-256 of the others. Then the directory is renamed. So a kill leaves a `.partial`, which the
//! next one removes, and what a broken disk has done to a file is seen before it is used.

use crate::error::{Error, Result};
use crate::io::folder::{Folder, is_there};
use crate::io::{read_json, write};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Says what is there.
const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "peft-rs checkpoint 1";

/// A file of a checkpoint: its name, and what writes it.
pub(super) type File<'a> = (&'a str, Fill<'a>);
type Fill<'a> = Box<dyn FnOnce(&Path, &mut BufWriter<fs::File>) -> Result<()> + 'a>;

/// A file of these bytes.
pub(super) fn bytes(bytes: &[u8]) -> Fill<'_> {
    Box::new(move |path, file| file.write_all(bytes).map_err(|e| Error::file(path, e)))
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

/// A directory that is whole: every file of its manifest is there, with its length and its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub path: PathBuf,
}

impl Checkpoint {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// A directory that is none; a file that is missing, of another length or with other bytes than when it was written.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join(MANIFEST);
        if !path.exists() {
            let message =
                format!("has no {MANIFEST}: it is no checkpoint, or one that was not written to its end");
            return Err(Error::format(dir, message));
        }
        let manifest: Manifest =
            serde_json::from_value(read_json(&path)?).map_err(|e| Error::format(&path, e))?;
        if manifest.format != FORMAT {
            let message = format!("is `{}`, expected `{FORMAT}`: it is of another version", manifest.format);
            return Err(Error::config(path.display(), "format", message));
        }
        for (name, expected) in &manifest.files {
            let file = dir.join(name);
            if Path::new(name).components().count() != 1 {
                return Err(Error::config(path.display(), name, "is no file of this directory"));
            }
            let found = Entry::of(&file)?;
            if found.bytes != expected.bytes {
                let message =
                    format!("has {} bytes, expected {}: it is cut off", found.bytes, expected.bytes);
                return Err(Error::format(file, message));
            }
            if found != *expected {
                let message =
                    "has other contents than were written: the file was changed, or the disk is failing";
                return Err(Error::format(file, message));
            }
        }
        Ok(Self { path: dir.to_owned() })
    }

    /// The bytes of one of the caller's files.
    ///
    /// # Errors
    /// A file that is not there.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        fs::read(&path).map_err(|e| Error::file(path, e))
    }
}

impl Entry {
    fn of(path: &Path) -> Result<Self> {
        let file = |e| Error::file(path, e);
        let (mut hash, mut source) = (Sha256::new(), fs::File::open(path).map_err(file)?);
        let bytes = std::io::copy(&mut source, &mut hash).map_err(file)?;
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { bytes, sha256 })
    }
}

/// Writes the files and their manifest into a directory of this name, over one that is there.
pub(super) fn write(dir: &Path, files: Vec<File<'_>>) -> Result<()> {
    let Some(name) = dir.file_name().and_then(|name| name.to_str()) else {
        return Err(Error::file(dir, ErrorKind::InvalidFilename.into()));
    };
    let parent = dir.parent().unwrap_or(Path::new(""));
    let folder = Folder::make(parent)?;
    let [partial, old] = ["partial", "old"].map(|end| parent.join(format!(".{name}.{end}")));
    let written = fill(&partial, files);
    if written.is_err() {
        // As little as possible stays: the disk may be full.
        let _ = fs::remove_dir_all(&partial);
    }
    written?;
    if is_there(dir) {
        remove(&old)?;
        fs::rename(dir, &old).map_err(|e| Error::file(dir, e))?;
    }
    fs::rename(&partial, dir).map_err(|e| Error::file(dir, e))?;
    folder.sync()?;
    remove(&old)
}

fn fill(dir: &Path, files: Vec<File<'_>>) -> Result<()> {
    remove(dir)?;
    fs::create_dir(dir).map_err(|e| Error::file(dir, e))?;
    let mut manifest = Manifest { format: FORMAT.to_owned(), files: BTreeMap::new() };
    for (name, fill) in files {
        let path = dir.join(name);
        put(&path, fill)?;
        manifest.files.insert(name.to_owned(), Entry::of(&path)?);
    }
    let manifest: Value = serde_json::to_value(&manifest).map_err(|e| Error::format(dir, e))?;
    put(&dir.join(MANIFEST), Box::new(|path, file| write::json(path, file, &manifest)))?;
    Folder::open(dir)?.sync()
}

fn put(path: &Path, fill: Fill<'_>) -> Result<()> {
    let mut out = BufWriter::new(fs::File::create_new(path).map_err(|e| Error::file(path, e))?);
    fill(path, &mut out)?;
    let file = out.into_inner().map_err(|e| Error::file(path, e.into_error()))?;
    file.sync_all().map_err(|e| Error::file(path, e))
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::file(dir, e)),
        _ => Ok(()),
    }
}
