//! What programs over this crate do alike, beyond [`device`](crate::device): how they end.

use std::error::Error;
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

/// How a program ends: well for `true`; badly for `false`, when it has said why; badly with one line `error: ...` on stderr
/// for an error, its causes included. Where the reader of a pipe has seen enough (`program | head`), writing to it fails, and
/// that is no error: the program ends well, and quietly.
///
/// `E` is `anyhow::Error`, or a box of an error.
///
/// ```
/// use std::process::ExitCode;
/// fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     Ok(())
/// }
/// fn main() -> ExitCode {
///     peft_core::program::exit(run().map(|()| true))
/// }
/// ```
pub fn exit<E: AsRef<dyn Error + Send + Sync>>(result: Result<bool, E>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => match message(e.as_ref()) {
            None => ExitCode::SUCCESS,
            Some(text) => {
                eprintln!("error: {text}");
                ExitCode::FAILURE
            }
        },
    }
}

/// The error and its causes on one line; `None` if one of them is that nobody reads on.
fn message(error: &(dyn Error + 'static)) -> Option<String> {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) {
            return None;
        }
        let _ = write!(text, "{}{error}", if text.is_empty() { "" } else { ": " });
        next = error.source();
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn an_error_is_one_line_and_a_closed_pipe_none() {
        let caused = anyhow!("no room").context("writing `a`");
        assert_eq!(message(caused.as_ref()).unwrap(), "writing `a`: no room");
        let closed = || io::Error::from(ErrorKind::BrokenPipe);
        assert_eq!(message(anyhow::Error::from(closed()).as_ref()), None);
        let told = Err::<(), _>(closed()).context("writing the table").unwrap_err();
        assert_eq!(message(told.as_ref()), None);
        assert!(message(anyhow::Error::from(io::Error::from(ErrorKind::NotFound)).as_ref()).is_some());
    }
}
