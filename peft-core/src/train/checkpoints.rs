//! The checkpoints of a run: which is the newest whole one, and which may go.

use crate::error::{Error, Result};
use crate::train::Run;
use crate::train::checkpoint::Checkpoint;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What a checkpoint is called, before the number of its step; the Hub's `Trainer` calls its own so, too.
const NAME: &str = "checkpoint-";

/// A directory with checkpoints, one a step: `checkpoint-120`.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
}

/// What [`Checkpoints::newest`] found.
#[derive(Debug)]
pub struct Newest {
    /// The step and the checkpoint, if there is a whole one.
    pub found: Option<(u64, Checkpoint)>,
    /// What is wrong with those of later steps, which were passed over.
    pub torn: Vec<Error>,
}

impl Checkpoints {
    /// The checkpoints in a directory, which need not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where the checkpoint of a step is.
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("{NAME}{step}"))
    }

    /// The checkpoints by step, whole or not.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn all(&self) -> Result<BTreeMap<u64, PathBuf>> {
        let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix(NAME)?.parse::<u64>().ok();
        Ok(self.entries()?.into_iter().filter_map(|path| Some((step(&path)?, path))).collect())
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        let failed = |e| Error::file(&self.dir, e);
        match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(failed(e)),
            Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        }
    }

    /// The newest whole checkpoint, and what is wrong with those after it.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn newest(&self) -> Result<Newest> {
        let mut torn = Vec::new();
        for (step, path) in self.all()?.into_iter().rev() {
            match Checkpoint::open(path) {
                Ok(checkpoint) => return Ok(Newest { found: Some((step, checkpoint)), torn }),
                Err(e) => torn.push(e),
            }
        }
        Ok(Newest { found: None, torn })
    }

    /// Saves a run under its step; see [`Run::save`].
    ///
    /// # Errors
    /// As [`Run::save`].
    pub fn save(&self, run: &Run, more: &[(&str, &[u8])]) -> Result<PathBuf> {
        let path = self.path(run.steps());
        run.save(&path, more)?;
        Ok(path)
    }

    /// Removes all but the last `keep` checkpoints and those of `others`, and what killed processes have left.
    ///
    /// # Errors
    /// What cannot be removed.
    pub fn prune(&self, keep: usize, others: &[u64]) -> Result<()> {
        let all = self.all()?;
        let gone = all.iter().rev().skip(keep.max(1)).filter(|(step, _)| !others.contains(step));
        for (step, path) in gone {
            // A kill while files are removed leaves nothing that looks like a checkpoint.
            let aside = self.dir.join(format!(".{NAME}{step}.old"));
            fs::rename(path, &aside).map_err(|e| Error::file(path, e))?;
        }
        let left = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&format!(".{NAME}")) && (name.ends_with(".old") || name.ends_with(".partial"))
        };
        for path in self.entries()?.iter().filter(|path| left(path)) {
            fs::remove_dir_all(path).map_err(|e| Error::file(path, e))?;
        }
        Ok(())
    }
}
