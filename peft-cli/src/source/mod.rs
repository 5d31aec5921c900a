//! Where a model or an adapter comes from: a directory, a file of one, or an id of the Hub.

mod cache;
mod fetch;
mod files;
mod id;
mod remote;
mod settings;
mod transfer;

pub use files::Kind;
pub use settings::{Settings, Token};

use crate::output::Output;
use anyhow::{Context, Result, bail};
use id::Id;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A model or an adapter as it is given: a directory, a file in one, or an id of the Hub: `owner/name`,
/// `owner/name@revision`, `owner/name/folder@revision`. What exists as a path is a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    given: String,
    place: Place,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Path(PathBuf),
    Hub(Id),
    /// Neither there nor an id.
    Nowhere,
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(given: &str) -> Result<Self, Infallible> {
        let path = Path::new(given);
        let (place, name) = if !given.is_empty() && path.exists() {
            let dir = directory(path);
            (Place::Path(dir.to_owned()), unmistakable(dir))
        } else if let Some(id) = Id::parse(given) {
            let name = id.repo().to_owned();
            (Place::Hub(id), name)
        } else {
            (Place::Nowhere, given.to_owned())
        };
        Ok(Self { given: given.to_owned(), place, name })
    }
}

impl Source {
    /// The model's directory, fetched if need be.
    pub fn model(&self, output: &Output) -> Result<PathBuf> {
        self.directory(Kind::Model, output)
    }

    /// A directory with the model's `config.json`; of the rest nothing is fetched.
    pub fn config(&self, output: &Output) -> Result<PathBuf> {
        self.directory(Kind::Config, output)
    }

    /// The adapter's directory, fetched if need be.
    pub fn adapter(&self, output: &Output) -> Result<PathBuf> {
        self.directory(Kind::Adapter, output)
    }

    /// The directory of a model or of an adapter, fetched if need be.
    ///
    /// # Errors
    /// What was looked for, and what the disk, the Hub or its cache says.
    pub fn directory(&self, kind: Kind, output: &Output) -> Result<PathBuf> {
        match &self.place {
            Place::Path(dir) => Ok(dir.clone()),
            Place::Hub(id) => fetch::fetch(id, kind, output).with_context(|| {
                format!("`{}` is no directory here, and not to be had from the Hub", self.given)
            }),
            Place::Nowhere => bail!(
                "`{}` is not there, and is no id of the Hub, which is `owner/name`, `owner/name@revision` or \
                 `owner/name/folder`",
                self.given
            ),
        }
    }

    /// What is written as `base_model_name_or_path`: the Hub's id, or the path as it was given. A relative path begins with
    /// `./` or `../`, since other programs take `models/mine` for an id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The revision that was asked for, of an id of the Hub: what `adapter_config.json` has as `revision`.
    pub fn revision(&self) -> Option<&str> {
        match &self.place {
            Place::Hub(id) => id.revision(),
            Place::Path(_) | Place::Nowhere => None,
        }
    }
}

/// The directory, where a file is named that is read from one (`models/mine/config.json`); anything else is what it is.
fn directory(path: &Path) -> &Path {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match path.parent() {
        Some(parent) if path.is_file() && files::belongs(file) => {
            if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }
        }
        _ => path,
    }
}

fn unmistakable(path: &Path) -> String {
    let text = path.display().to_string();
    let rooted =
        path.has_root() || text == "." || text == ".." || text.starts_with("./") || text.starts_with("../");
    if rooted { text } else { format!("./{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(given: &str) -> Source {
        given.parse().unwrap()
    }

    #[test]
    fn paths_come_first_and_are_told_from_ids() {
        for (given, name) in [
            ("src/commands", "./src/commands"),
            ("./src", "./src"),
            ("..", ".."),
            ("owner/name", "owner/name"),
            ("owner/name@v1", "owner/name"),
            ("owner/name/folder@refs/pr/1", "owner/name"),
        ] {
            assert_eq!(source(given).name(), name);
        }
        assert_eq!(source("owner/name@refs/pr/1").revision(), Some("refs/pr/1"));
        assert_eq!(source("src").place, Place::Path("src".into()));
        for nowhere in ["./owner/name", "/owner/name", "../x", "", "a b", "owner/name@", "a//b", "~/x"] {
            assert_eq!(source(nowhere).place, Place::Nowhere, "{nowhere}");
        }
    }

    #[test]
    fn a_file_of_a_directory_stands_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        std::fs::write(&file, "").unwrap();
        assert_eq!(source(file.to_str().unwrap()).place, Place::Path(dir.path().into()));
        let other = dir.path().join("other.gguf");
        std::fs::write(&other, "").unwrap();
        assert_eq!(source(other.to_str().unwrap()).place, Place::Path(other));
    }
}
