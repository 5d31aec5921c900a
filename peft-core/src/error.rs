//! What can go wrong, each with the names and shapes that are needed to mend it.
//!
//! A message is whole: no error hands on another one as its source, so that printing the chain repeats nothing. Whoever
//! gives an error back from `main` sees the same message: `{:?}` prints it as `{}` does.

use std::fmt::{Debug, Display, Formatter};
use std::path::{Path, PathBuf};
use tch::{Kind, TchError};

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Every way in which this crate can fail. Nothing in it panics on bad input.
///
/// The message says what is wrong and where, on one line. `{:?}` prints it as `{}` does, so it is also what a program
/// ends with whose `main` hands the error on, boxed or not:
///
/// ```
/// # use peft_core::{Peft, models::TinyConfig, tch::Device};
/// # fn main() -> peft_core::Result<()> {
/// # let peft = Peft::new(TinyConfig::default().init(Device::Cpu)?, TinyConfig::default())?;
/// let error: Box<dyn std::error::Error> = peft.view(&["mine"]).unwrap_err().into();
/// assert_eq!(format!("{error:?}"), "no adapter named `mine`; there are: none");
/// # Ok(())
/// # }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that was asked for is not in a sealed store (a file, or an adapter that was already made).
    #[error("{place}: no tensor `{name}` (expected shape {expected:?}){hint}")]
    Missing { place: String, name: String, expected: Vec<i64>, hint: String },

    /// A tensor has another shape than the model or the method needs.
    #[error("{place}: tensor `{name}` has shape {found:?}, expected {expected:?}{hint}")]
    Shape { place: String, name: String, expected: Vec<i64>, found: Vec<i64>, hint: String },

    /// A tensor of numbers that cannot be trained or added.
    #[error("{place}: tensor `{name}` has dtype {found:?}, expected floats")]
    Dtype { place: String, name: String, found: Kind },

    /// Tensors that nobody asked for: a file that belongs to something else.
    #[error("{place}: nothing reads {}; is it for another model or configuration?", list(names))]
    Unread { place: String, names: Vec<String> },

    /// A name that is already taken.
    #[error("{place}: `{name}` exists already")]
    Exists { place: String, name: String },

    /// A place to save to that has something already, which was not to be overwritten.
    #[error(
        "{}: {what} is there already; save to another directory, or say that it may be overwritten \
         (IfExists::Replace, --overwrite)",
        path.display()
    )]
    Occupied { path: PathBuf, what: &'static str },

    /// An adapter that was made for another base.
    #[error(
        "{}: the adapter was made for {base}, and this is another base: {differs}; open the one that it was made for, or say \
         that another one is meant (OtherBase::Accept, --force)",
        path.display()
    )]
    OtherBase { path: PathBuf, base: String, differs: String },

    /// No adapter of that name.
    #[error("no adapter named `{name}`; there are: {}", or_none(known))]
    UnknownAdapter { name: String, known: Vec<String> },

    /// A pattern that matches no place in the model.
    #[error("{method}: `{pattern}` in {field} matches nothing in this model{}", did_you_mean(close))]
    NoTarget { method: &'static str, field: &'static str, pattern: String, close: Vec<String> },

    /// A method that found nothing to adapt.
    #[error("{method} adapts nothing in this model")]
    Idle { method: &'static str },

    /// A method was pointed at something that it has no formula for.
    #[error("{method} cannot adapt `{site}`: {why}")]
    Unsupported { method: &'static str, site: String, why: String },

    /// Two active adapters train the same rows of one embedding: only one of them could count.
    #[error("adapters `{}` and `{}` both train tokens {tokens:?} at `{site}`", adapters[0], adapters[1])]
    Overlap { adapters: [String; 2], site: String, tokens: Vec<i64> },

    /// The method is not a map on weights, so there is nothing to fold into the base.
    #[error("{method} at `{site}` cannot be merged: it is not a map on the layer's weights")]
    NotMergeable { method: &'static str, site: String },

    /// Merged weights that are NaN or infinite.
    #[error("merging: {whose} makes the weights at `{site}` NaN or infinite")]
    NotFinite { whose: String, site: String },

    /// A configuration field that is wrong, or that this crate does not have.
    #[error("{place}: {field}: {message}")]
    Config { place: String, field: String, message: String },

    /// Data that does not fit the model: ids, masks, labels, texts.
    #[error("{0}")]
    Input(String),

    /// A number that should be finite is not. `rows` are those of the data that it was computed of, where they are known.
    #[error(
        "{what} is {value} at step {step}{}: training has diverged (a lower learning rate, or clipping, may help); \
         a loss over labels that are all -100 is NaN as well",
        of_rows(rows)
    )]
    NonFinite { what: &'static str, value: f64, step: u64, rows: Vec<usize> },

    /// Labels of which none counts, so that there is nothing to learn and no loss.
    #[error(
        "every label{} is -100, so that none counts: there is no loss (was the text cut to its prompt?)",
        of_rows(rows)
    )]
    Masked { rows: Vec<usize> },

    /// The device has no memory for a tensor.
    #[error("out of memory: {0}")]
    Memory(String),

    /// The device that was asked for is not there.
    #[error("{device}: {why}")]
    Device { device: String, why: String },

    /// A file that cannot be read or written.
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },

    /// A file with contents that cannot be understood.
    #[error("{}: {message}", path.display())]
    Format { path: PathBuf, message: String },

    /// An error of libtorch, first line only (the rest is a C++ stack).
    #[error("libtorch: {0}")]
    Torch(String),

    /// An error inside the model, with the place where it happened.
    #[error("at `{site}`: {error}")]
    At { site: String, error: Box<Error> },

    /// An error about what a file says, with the file.
    #[error("{}: {error}", path.display())]
    In { path: PathBuf, error: Box<Error> },
}

/// What `main` prints of an error, and `unwrap`: the message.
impl Debug for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        Display::fmt(self, f)
    }
}

impl Error {
    /// Adds the site where the error happened, unless it is known already (or the error names its own).
    #[must_use]
    pub fn at(self, site: &str) -> Self {
        match self {
            Error::Torch(_) => Error::At { site: site.to_owned(), error: Box::new(self) },
            other => other,
        }
    }

    /// Adds the file whose words were wrong, unless the error names one already.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            // It names a file beside this one already.
            Error::Config { ref place, .. } if Path::new(place).parent() == path.parent() => self,
            Error::Config { .. }
            | Error::NoTarget { .. }
            | Error::Idle { .. }
            | Error::Unsupported { .. }
            | Error::Torch(_) => Error::In { path: path.to_owned(), error: Box::new(self) },
            other => other,
        }
    }

    /// What libtorch says. It has no kind for a lack of memory, only words: those of its allocators.
    fn torch(message: &str) -> Self {
        const LACKS: [&str; 4] =
            ["out of memory", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"];
        match LACKS.iter().any(|words| message.contains(words)) {
            true => Error::Memory(message.to_owned()),
            false => Error::Torch(message.to_owned()),
        }
    }

    pub(crate) fn file(path: impl AsRef<Path>, error: std::io::Error) -> Self {
        Error::File { path: path.as_ref().to_owned(), error }
    }

    pub(crate) fn format(path: impl AsRef<Path>, message: impl ToString) -> Self {
        Error::Format { path: path.as_ref().to_owned(), message: message.to_string() }
    }

    pub(crate) fn config(place: impl ToString, field: impl ToString, message: impl ToString) -> Self {
        Error::Config { place: place.to_string(), field: field.to_string(), message: message.to_string() }
    }
}

impl From<TchError> for Error {
    fn from(e: TchError) -> Self {
        Error::torch(e.to_string().lines().next().unwrap_or_default())
    }
}

impl From<peft_sys::ShimError> for Error {
    fn from(e: peft_sys::ShimError) -> Self {
        Error::torch(&e.0)
    }
}

/// " of rows 3, 7, 1": as a part of a sentence, nothing where there is none.
fn of_rows(rows: &[usize]) -> String {
    const SHOWN: usize = 16;
    if rows.is_empty() {
        return String::new();
    }
    let shown = rows.iter().take(SHOWN).map(usize::to_string).collect::<Vec<_>>().join(", ");
    let more = rows.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(" of rows {shown}{more} (from 0)")
}

/// "`a`, `b` and 7 more": long lists are cut, and say so.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(SHOWN).filter(|m| *m > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { list(names) }
}

fn did_you_mean(close: &[String]) -> String {
    if close.is_empty() {
        "; is it for another one?".into()
    } else {
        format!("; did you mean {}?", list(close))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torch_messages_are_one_line_and_carry_the_site() {
        let e = tch::Tensor::f_zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu))
            .and_then(|t| t.f_matmul(&t))
            .expect_err("2x3 by 2x3");
        let e = Error::from(e).at("layers.0.ff.0").at("layers.0");
        let text = e.to_string();
        assert!(text.starts_with("at `layers.0.ff.0`: libtorch: "), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..8).map(|i| format!("t{i}")).collect();
        assert_eq!(list(&names), "`t0`, `t1`, `t2`, `t3`, `t4` and 3 more");
    }
}
