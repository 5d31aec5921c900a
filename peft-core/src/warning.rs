//! What was read, changes no number here, and should be said.

use std::fmt::{Display, Formatter};

/// Something that a file says and this crate passes over, because it changes no number: a name that the model does not
/// have beside others that it has, a field that only Python's training reads, one that nobody knows. What opens or loads
/// files hands them to its caller; a program prints them on stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file, or whatever else said it.
    pub place: String,
    /// The field, the key or the name in question.
    pub field: String,
    /// What is passed over, and why nothing is lost.
    pub message: String,
}

impl Warning {
    /// From its parts.
    pub fn new(place: impl ToString, field: impl ToString, message: impl ToString) -> Self {
        Self { place: place.to_string(), field: field.to_string(), message: message.to_string() }
    }
}

impl Display for Warning {
    /// As errors are displayed: `place: field: message`.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.field, self.message)
    }
}
