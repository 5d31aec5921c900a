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
                // Where nobody reads it, the exit code has to do.
                let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("error: {text}\n"));
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
    Some(line(&text))
}

/// The most characters that one line of a message has.
const LONGEST: usize = 2000;

/// A message as one line of a terminal, whatever the files that it quotes hold: control characters are escaped, and of a very
/// long one the middle is left out.
///
/// ```
/// assert_eq!(peft_core::program::line("no \n such\u{1b}[2J"), "no \\n such\\u{1b}[2J");
/// ```
pub fn line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for c in message.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    let count = line.chars().count();
    if count <= LONGEST {
        return line;
    }
    let half = LONGEST / 2;
    let begin: String = line.chars().take(half).collect();
    let end: String = line.chars().skip(count.saturating_sub(half)).collect();
    format!("{begin} [...] {end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let caused = anyhow!("found \"a\nb\u{1b}[2J\"").context("x".repeat(1 << 16));
        let text = message(caused.as_ref()).unwrap();
        assert!(text.len() < 2100 && text.ends_with("\"a\\nb\\u{1b}[2J\""), "{text}");
        assert!(!text.chars().any(char::is_control));
    }

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
