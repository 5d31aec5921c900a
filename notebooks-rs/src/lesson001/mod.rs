//! Lesson 001, "PEFT Unified": the methods as classes of their own, without a run. The lesson has no seed, so it is 19
//! here; its classes, with that seed, have the bits of PyTorch 2.11.

pub mod adapter;
mod measure;

use crate::{Document, Section};

/// Where the lesson has none.
const SEED: i64 = 19;

/// The lesson.
pub const DOCUMENT: Document = Document {
    number: "001",
    title: "PEFT, unified",
    sections: &[Section {
        name: "unified_adapter",
        number: "3.1",
        title: "Bottleneck Adapters",
        about: "nearly the identity at the start, exactly where U = 0; the two places in a block",
        seed: SEED,
        run: adapter::run,
    }],
};
