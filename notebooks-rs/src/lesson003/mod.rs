//! Lesson 003, "Focused Learning: PEFT Methods": LoRA and zero-init prefixes, for code review.
//!
//! Its author never ran it: cell 4 stops at a function that numpy has not. With seed 42 every drawn number has the bits
//! of PyTorch 2.11 and numpy. The paper's results are quoted as the lesson has them; what follows from them is computed.

mod bubbles;
mod cells;
mod classifier;
mod count;
mod insights;
mod llama;
mod lora;
mod model;
mod paper;
mod pictures;
mod probe;
mod results;
mod zero_init;

use crate::{Document, Section};

pub use cells::{Cell2, Cell3, GATE, HEADS, LORA, PROMPT, cell6, inputs};
pub use lora::output;
pub use model::{LESSON, lesson_gradients};
pub use pictures::{Cell4, Matrix};
pub use zero_init::{Gated, SWEEP};

/// The lesson.
pub const DOCUMENT: Document = Document {
    number: "003",
    title: "PEFT for code review",
    sections: &[
        Section {
            name: "review_parameters",
            number: "1",
            title: "Understanding PEFT: Why Do We Need It?",
            about: "counting parameters, and what a copy of a 7B model for each task costs",
            seed: 42,
            run: count::review_parameters,
        },
        Section {
            name: "review_lora",
            number: "2",
            title: "Low-Rank Adaptation (LoRA) - Mathematical Foundation",
            about: "LoRA of rank 8 and 16 beside a whole layer",
            seed: 42,
            run: lora::review_lora,
        },
        Section {
            name: "review_zero_init",
            number: "3",
            title: "Zero-init Attention Prefix-tuning - Mathematical Foundation",
            about: "a gate that is zero at the start, and one that is not",
            seed: 42,
            run: zero_init::review_zero_init,
        },
        Section {
            name: "review_pictures",
            number: "4",
            title: "Visualizing How PEFT Methods Work",
            about: "W, BA and W + BA, and attention with and without a prefix, as pictures",
            seed: 42,
            run: pictures::review_pictures,
        },
        Section {
            name: "review_results",
            number: "5",
            title: "Comparing LoRA vs Prefix-tuning for Code Review",
            about: "the paper's results, and what follows from them",
            seed: 42,
            run: results::review_results,
        },
        Section {
            name: "review_model",
            number: "6",
            title: "Implementing PEFT for Code Review Task",
            about: "the code-review model, without its attention and with it",
            seed: 42,
            run: model::review_model,
        },
        Section {
            name: "review_insights",
            number: "7",
            title: "Key Insights and Takeaways",
            about: "the lesson's conclusions beside numbers, and the bubble chart",
            seed: 42,
            run: insights::review_insights,
        },
    ],
};
