//! Files: safetensors, adapter directories, Hub model directories, labelled text.

pub mod adapter;
pub(crate) mod directory;
mod heads;
pub mod hub;
mod json;
mod pickle;
mod quantised;
mod shards;
pub mod tensors;
pub mod text;
pub(crate) mod token_ids;
pub(crate) mod tokenizer;

use crate::{Error, Result};
pub use json::read_json;
pub(crate) use json::shown;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes a file whole or not at all: into a temporary file beside it, which is flushed to disk and renamed.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut NamedTempFile) -> Result<()>) -> Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|e| Error::file(dir, e))?;
    let mut file = NamedTempFile::new_in(dir).map_err(|e| Error::file(dir, e))?;
    fill(&mut file)?;
    readable(&file).and_then(|()| file.as_file().sync_all()).map_err(|e| Error::file(path, e))?;
    file.persist(path).map_err(|e| Error::file(path, e.error))?;
    // The rename itself is on disk once the directory is; where directories cannot be opened there is no such step.
    if let Ok(dir) = std::fs::File::open(dir) {
        let _ = dir.sync_all();
    }
    Ok(())
}

/// Temporary files are made for the owner alone; a model is for everybody who may read the directory.
#[cfg(unix)]
fn readable(file: &NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &NamedTempFile) -> std::io::Result<()> {
    Ok(())
}

/// A JSON file with an indent of two.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_atomically(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value).map_err(|e| Error::format(path, e))?;
        file.flush().map_err(|e| Error::file(path, e))
    })
}
