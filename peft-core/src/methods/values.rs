//! Fields whose value in the file is a name among other things: variants in Rust, and so never a wrong name.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `true`, `false` or a name, as the file has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum FlagOrName {
    Flag(bool),
    Name(String),
    /// Neither: for the message alone.
    Other(Value),
}

/// A number or a name, as the file has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrName {
    Number(f64),
    Name(String),
    /// Neither: for the message alone.
    Other(Value),
}
