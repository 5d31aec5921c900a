//! How a command ends.

use std::process::ExitCode;

/// How a command ended that did not fail. An error is exit code 1, a wrong command line 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well: 0.
    Done,
    /// What was looked at has faults, which were said (`check`, `doctor`): 3.
    Faults,
    /// A signal or `--max-time` ended a training before its end; all of it is saved, and `--resume` goes on: 4.
    Interrupted,
    /// A loss or a gradient was not finite; the last good checkpoint was named: 5.
    Diverged,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        ExitCode::from(match outcome {
            Outcome::Done => 0,
            Outcome::Faults => 3,
            Outcome::Interrupted => 4,
            Outcome::Diverged => 5,
        })
    }
}
