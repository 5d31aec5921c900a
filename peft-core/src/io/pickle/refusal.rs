//! Why a pickle is not read.

/// What is wrong with a file, without its name.
#[derive(Debug)]
pub(super) struct Refusal {
    pub what: String,
    /// Whether PyTorch may read it all the same, and so make safetensors of it.
    pub foreign: bool,
}

pub(super) type Refused<T> = std::result::Result<T, Refusal>;

impl Refusal {
    /// Says where.
    pub fn at(mut self, place: &str) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }
}

impl<S: Into<String>> From<S> for Refusal {
    fn from(what: S) -> Self {
        Self { what: what.into(), foreign: false }
    }
}

/// What nobody can read.
pub(super) fn broken<T>(what: impl Into<String>) -> Refused<T> {
    Err(what.into().into())
}

/// What is not read here.
pub(super) fn foreign<T>(what: impl Into<String>) -> Refused<T> {
    Err(Refusal { what: what.into(), foreign: true })
}
