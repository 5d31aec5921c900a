//! What can go wrong.

use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Every way in which a figure cannot be drawn. A message is whole: it names the panel or the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Numbers or words that no picture can show as they are.
    #[error("{}{why}", place(panel))]
    Data {
        /// The title of the panel, unless it is about the figure.
        panel: Option<String>,
        /// Which number or word, and why.
        why: String,
    },
    /// A name that is a path, empty or hidden.
    #[error("`{0}` cannot be the name of a picture: letters, digits, `-`, `_` and inner dots are allowed")]
    Name(String),
    /// A file that cannot be written.
    #[error("{}: {why}", path.display())]
    File {
        /// The file or its directory.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The drawing itself failed.
    #[error("drawing: {0}")]
    Draw(String),
}

impl Error {
    pub(crate) fn data(why: impl Into<String>) -> Self {
        Error::Data { panel: None, why: why.into() }
    }

    pub(crate) fn file(path: &Path, why: impl ToString) -> Self {
        Error::File { path: path.to_owned(), why: why.to_string() }
    }

    pub(crate) fn draw(why: impl ToString) -> Self {
        Error::Draw(why.to_string())
    }

    /// Says in which panel it was.
    pub(crate) fn within(self, title: &str) -> Self {
        match self {
            Error::Data { panel: None, why } => Error::Data { panel: Some(title.to_owned()), why },
            other => other,
        }
    }
}

fn place(panel: &Option<String>) -> String {
    panel.as_ref().map(|title| format!("panel `{title}`: ")).unwrap_or_default()
}
