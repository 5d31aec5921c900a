//! Which lessons there are, and which program runs which section.

use crate::cli::Setting;
use crate::{Page, lesson000, lesson001, lesson002, lesson003, lesson004};
use anyhow::Result;

/// One of the lesson documents.
#[derive(Debug)]
pub struct Document {
    /// "000"
    pub number: &'static str,
    pub title: &'static str,
    pub sections: &'static [Section],
}

/// A section of a lesson: one program.
#[derive(Debug)]
pub struct Section {
    /// The program's name.
    pub name: &'static str,
    /// As the lesson counts it: "2.3".
    pub number: &'static str,
    /// The lesson's heading.
    pub title: &'static str,
    /// What the program shows, in one line.
    pub about: &'static str,
    /// The seed that belongs to the lesson's numbers.
    pub seed: i64,
    pub run: fn(Setting, &mut Page) -> Result<()>,
}

/// All lessons, in order.
pub const DOCUMENTS: &[&Document] = &[
    &lesson000::DOCUMENT,
    &lesson001::DOCUMENT,
    &lesson002::DOCUMENT,
    &lesson003::DOCUMENT,
    &lesson004::DOCUMENT,
];

/// The section that the program `name` runs, and its lesson.
pub fn find(name: &str) -> Option<(&'static Document, &'static Section)> {
    DOCUMENTS.iter().find_map(|d| d.sections.iter().find(|s| s.name == name).map(|s| (*d, s)))
}
