//! Lesson 002, "Section 9.6: Implementation": four methods from scratch, forward and backward.
//!
//! The only lesson here whose methods are not the library's: they are written by hand, in f64, with the derivation of
//! every gradient in the comments. [`Module`] is the pattern that the lesson says all of its classes follow; here they do.
//! Each is compared with libtorch's autograd, with finite differences, and with the library's own method.
//!
//! Classes: [`lora`], [`adapter`], [`attention`], [`prefix`], [`prompt`]. Programs: [`sections`] and [`exercises`].

pub mod adapter;
pub mod attention;
pub mod check;
pub mod compare;
pub mod exercises;
mod library;
pub mod lora;
pub mod module;
pub mod prefix;
pub mod prompt;
pub mod sections;
pub mod tensors;
pub mod train;

pub use module::{Module, Parameter};

use crate::{Document, Section};

/// The seed of what is drawn; nothing that the lesson prints depends on it.
const SEED: i64 = 2;

/// The lesson.
pub const DOCUMENT: Document = Document {
    number: "002",
    title: "Forward and backward from scratch",
    sections: &[
        Section {
            name: "scratch_lora",
            number: "9.6",
            title: "LoRA Implementation",
            about: "the gradients of B A by hand, and how a gradient check works",
            seed: SEED,
            run: sections::lora::section,
        },
        Section {
            name: "scratch_adapter",
            number: "9.6",
            title: "Adapter Implementation",
            about: "through a bottleneck and its relu by hand; near the identity is not the identity",
            seed: SEED,
            run: sections::adapter::section,
        },
        Section {
            name: "scratch_prefix",
            number: "9.6",
            title: "Prefix Tuning Implementation",
            about: "trained keys and values, with the derivative of attention that the lesson leaves out",
            seed: SEED,
            run: sections::prefix::section,
        },
        Section {
            name: "scratch_prompt",
            number: "9.6",
            title: "Prompt Tuning Implementation",
            about: "the gradient of what every row of the batch shares",
            seed: SEED,
            run: sections::prompt::section,
        },
        Section {
            name: "scratch_attention",
            number: "9.6",
            title: "Apply LoRA to Attention",
            about: "forward and backward through a whole attention with LoRA on q and v",
            seed: SEED,
            run: sections::attention::section,
        },
        Section {
            name: "scratch_comparison",
            number: "9.6",
            title: "Compare PEFT Methods",
            about: "parameter counts at the scale of 7B, by two denominators",
            seed: SEED,
            run: sections::comparison::section,
        },
        Section {
            name: "scratch_demo",
            number: "9.6",
            title: "Running the Demo",
            about: "the lesson's output to the digit, and its summary by what the classes can do",
            seed: SEED,
            run: sections::demo::section,
        },
        Section {
            name: "scratch_exercises",
            number: "9.6",
            title: "Exercises",
            about: "all six of them solved, each checked by a number",
            seed: SEED,
            run: exercises::section,
        },
    ],
};
