//! `.cargo/config.toml`: one key of it, `env.LIBTORCH`.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, value};

/// The configuration of a workspace.
#[derive(Debug)]
pub struct Config {
    root: PathBuf,
    file: PathBuf,
    document: DocumentMut,
}

impl Config {
    /// Of the workspace at `root`; one that is not there is empty.
    ///
    /// # Errors
    /// Where the file cannot be read, or is not TOML.
    pub fn read(root: &Path) -> Result<Self> {
        let old_name = root.join(".cargo/config"); // which cargo prefers
        let file = if old_name.exists() { old_name } else { root.join(".cargo/config.toml") };
        let text = match std::fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| format!("{} cannot be read", file.display()))?,
        };
        let document = text.parse().with_context(|| format!("{} is not TOML", file.display()))?;
        Ok(Self { root: root.to_owned(), file, document })
    }

    /// What it says, in either form: a string, or a table that may say that the path is relative.
    pub fn libtorch(&self) -> Option<PathBuf> {
        let entry = self.document.get("env")?.get("LIBTORCH")?;
        match entry.as_str() {
            Some(path) => Some(path.into()),
            None => {
                let relative = entry.get("relative").and_then(|flag| flag.as_bool()) == Some(true);
                let path = entry.get("value")?.as_str()?;
                Some(if relative { self.root.join(path) } else { path.into() })
            }
        }
    }

    /// Says `libtorch`, unless it does already, leaves all else as it is, and returns the file's path.
    ///
    /// # Errors
    /// Where the file cannot be written, `env` is no table or the path is not UTF-8.
    pub fn set(&mut self, libtorch: &Path) -> Result<&Path> {
        if self.libtorch().as_deref() == Some(libtorch) {
            return Ok(&self.file);
        }
        let Some(path) = libtorch.to_str() else { bail!("{} is not UTF-8", libtorch.display()) };
        let env = self.document.entry("env").or_insert(toml_edit::table());
        let Some(env) = env.as_table_like_mut() else {
            bail!("{}: `env` is not a table", self.file.display())
        };
        env.insert("LIBTORCH", value(path));
        std::fs::create_dir_all(self.root.join(".cargo"))
            .and_then(|()| std::fs::write(&self.file, self.document.to_string()))
            .with_context(|| format!("{} cannot be written", self.file.display()))?;
        Ok(&self.file)
    }
}
