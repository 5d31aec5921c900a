//! One repository in the Hub's cache, laid out as Python's huggingface_hub has it, so that both use the same files.
//!
//! ```text
//! models--owner--name/refs/main                        the commit that the branch was at
//! models--owner--name/blobs/<etag>                     a file's bytes; <etag>.incomplete while they arrive
//! models--owner--name/snapshots/<commit>/config.json   -> ../../blobs/<etag>
//! .locks/models--owner--name/<etag>.lock               who fetches that file
//! ```

use crate::output::Output;
use anyhow::{Context, Result};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Cache {
    repo: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub fn new(root: &Path, repo: &str) -> Self {
        let folder = format!("models--{}", repo.replace('/', "--"));
        Self { repo: root.join(&folder), locks: root.join(".locks").join(folder) }
    }

    /// The repository's folder.
    pub fn place(&self) -> &Path {
        &self.repo
    }

    /// The commit of `revision` as far as the cache knows.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.repo.join("refs").join(revision)).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// Notes that `revision` is at `commit` now.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.repo.join("refs").join(revision);
        make_parent(&path)?;
        let unsaid = |e| peft_core::Error::File { path: path.clone(), error: e };
        Ok(peft_core::io::write_atomically(&path, |file| file.write_all(commit.as_bytes()).map_err(unsaid))?)
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit)
    }

    /// A folder in a snapshot; `""` is the snapshot itself.
    pub fn folder(&self, commit: &str, folder: &str) -> PathBuf {
        let snapshot = self.snapshot(commit);
        if folder.is_empty() { snapshot } else { snapshot.join(folder) }
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.repo.join("blobs").join(etag)
    }

    /// Puts the file at its place in the snapshot: a link to its bytes.
    pub fn link(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        make_parent(&path)?;
        let up = "../".repeat(name.split('/').count().saturating_add(1));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).context(path.display().to_string());
            }
            _ => {}
        }
        link(Path::new(&format!("{up}blobs/{etag}")), &path).with_context(|| path.display().to_string())
    }

    /// Waits until nobody else fetches that file, Python included.
    pub fn lock(&self, etag: &str, output: &Output) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                output.note(format_args!(
                    "another program is fetching this file: waiting for it ({})",
                    path.display()
                ));
                file.lock().with_context(|| path.display().to_string())?;
            }
            // A file system without locks: the bytes are checked when all are there.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        Ok(file)
    }
}

/// Whether a revision is a commit's hash, which never changes.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

pub fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    fs::copy(path.parent().unwrap_or(Path::new("")).join(target), path).map(drop)
}
