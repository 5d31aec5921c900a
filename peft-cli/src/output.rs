//! Where a command writes: results to stdout, as text or as JSON; progress, warnings and errors to stderr.

use anyhow::Result;
use peft_core::program::line;
use serde::Serialize;
use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};

/// What the options that every command has say of its output.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Results as JSON, one value a line.
    pub json: bool,
    /// No progress and no notes on stderr; warnings and errors stay.
    pub quiet: bool,
}

impl Output {
    /// One result: `value` as a line of JSON, or what `text` makes of it. A reader that has gone away ends the program
    /// quietly.
    pub fn result<T: Serialize, D: Display>(&self, value: &T, text: impl FnOnce(&T) -> D) -> Result<()> {
        let line = if self.json { serde_json::to_string(value)? } else { text(value).to_string() };
        writeln!(stdout(), "{line}")?;
        Ok(())
    }

    /// As [`Output::result`], of work that is worth going on with where nobody reads any more.
    pub fn told<T: Serialize, D: Display>(&self, value: &T, text: impl FnOnce(&T) -> D) -> Result<()> {
        match self.result(value, text) {
            Err(e)
                if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Something good to know, for people: on stderr.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            say(text);
        }
    }

    /// What went wrong, where a command ends with an outcome of its own and not with an error.
    pub fn error(&self, text: impl Display) {
        say(format_args!("error: {}", line(&text.to_string())));
    }

    /// What was read and passed over.
    pub fn warn(&self, warnings: impl IntoIterator<Item = impl Display>) {
        for warning in warnings {
            say(format_args!("warning: {}", line(&warning.to_string())));
        }
    }
}

/// A line on stderr. That nobody reads it is no reason to lose hours of work: then it is said to nobody.
pub fn say(text: impl Display) {
    let _ = writeln!(stderr(), "{text}");
}
