//! Lesson 000, "Notebook 2 — PEFT Techniques": four techniques over one frozen base, compared with full fine-tuning.
//!
//! Labels are random and the "downstream" data is the pre-training data, so every accuracy is noise around a quarter;
//! what the lesson teaches is the mechanics and the counts. With seed 0 on one thread of an AVX-512 processor every
//! number has the bits of PyTorch 2.11.

mod comparison;
mod sections;
mod setup;
mod takeaways;
mod transfer;

use crate::{Document, Section};

pub use comparison::compare;
pub use setup::{Lesson, TECHNIQUES, Technique};
pub use transfer::task;

/// The lesson.
pub const DOCUMENT: Document = Document {
    number: "000",
    title: "PEFT techniques over one frozen base",
    sections: &[
        Section {
            name: "base_model",
            number: "2.1",
            title: "Base Model Setup",
            about: "a small transformer learns random labels by heart",
            seed: 0,
            run: sections::base_model,
        },
        Section {
            name: "adapter",
            number: "2.2",
            title: "Adapter-Based Fine-Tuning",
            about: "a bottleneck after each layer, the identity until it is trained",
            seed: 0,
            run: sections::adapter,
        },
        Section {
            name: "lora",
            number: "2.3",
            title: "LoRA — Low-Rank Adaptation",
            about: "B A beside a frozen weight, and merged into it",
            seed: 0,
            run: sections::lora,
        },
        Section {
            name: "prompt_tuning",
            number: "2.4",
            title: "Prompt Tuning",
            about: "five trained vectors before the words",
            seed: 0,
            run: sections::prompt_tuning,
        },
        Section {
            name: "prefix_tuning",
            number: "2.5",
            title: "Prefix Tuning",
            about: "five trained hidden states before every layer's attention",
            seed: 0,
            run: sections::prefix_tuning,
        },
        Section {
            name: "comparison",
            number: "2.6",
            title: "Side-by-Side Comparison",
            about: "all of them on random labels, and on a task on which they separate",
            seed: 0,
            run: comparison::comparison,
        },
        Section {
            name: "takeaways",
            number: "2.7",
            title: "Key Takeaways",
            about: "the lesson's shares of trained parameters beside the real ones, here and at 7B",
            seed: 0,
            run: takeaways::takeaways,
        },
    ],
};
