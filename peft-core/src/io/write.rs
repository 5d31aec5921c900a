//! Single files, written whole or not at all.

use super::saving::Saving;
use crate::{Error, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, ErrorKind};
use std::path::Path;

/// Writes a file whole or not at all, over one that is there: beside it first, flushed to disk, then renamed. `fill` gets
/// the handle. The file's mode is what the umask says; a link is replaced, and what it leads to stays.
///
/// # Errors
/// What `fill` says, and a place that cannot be written to; the old file stays then, and nothing is left beside it.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::file(path, ErrorKind::InvalidFilename.into()));
    };
    let mut saving = Saving::begin(path.parent().unwrap_or(Path::new("")), name)?;
    saving.put(name, fill)?;
    saving.commit()
}

/// A JSON file with an indent of two.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_atomically(path, |file| json(path, file, value))
}

/// The text of a JSON file.
pub(super) fn json(path: &Path, file: &mut BufWriter<File>, value: &Value) -> Result<()> {
    serde_json::to_writer_pretty(file, value)
        .map_err(|e| if e.is_io() { Error::file(path, e.into()) } else { Error::format(path, e) })
}
