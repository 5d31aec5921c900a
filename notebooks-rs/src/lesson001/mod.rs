//! Lesson 001, "PEFT Unified": the methods as classes of their own, without a run. The lesson has no seed, so it is 19
//! here; its classes, with that seed, have the bits of PyTorch 2.11.

pub mod adapter;
pub mod apply;
pub mod dora;
mod dora_fit;
mod entries;
pub mod ia3;
pub mod lora;
mod measure;
mod qlora;
mod quantised;
mod ranks;
mod small_llama;
mod task;
mod taxonomy;

use crate::{Document, Section};

/// Where the lesson has none.
const SEED: i64 = 19;

/// The lesson.
pub const DOCUMENT: Document = Document {
    number: "001",
    title: "PEFT, unified",
    sections: &[
        Section {
            name: "unified_taxonomy",
            number: "1.2",
            title: "PEFT Method Classification",
            about: "every entry of the lesson's box, trained over one frozen base",
            seed: SEED,
            run: taxonomy::run,
        },
        Section {
            name: "unified_lora",
            number: "2.1",
            title: "Mathematical Principle",
            about: "W + s B A: counts, start, merging, dropout, targets, and what a rank can express",
            seed: SEED,
            run: lora::run,
        },
        Section {
            name: "unified_qlora",
            number: "2.2",
            title: "QLoRA (Quantized LoRA)",
            about: "LoRA over a base in 4 bits: what rounding costs, what it saves, what is counted",
            seed: SEED,
            run: qlora::run,
        },
        Section {
            name: "unified_dora",
            number: "2.3",
            title: "DoRA (Weight-Decomposed Low-Rank Adaptation)",
            about: "length and direction of every row: why the magnitude starts as the row norm",
            seed: SEED,
            run: dora::run,
        },
        Section {
            name: "unified_adapter",
            number: "3.1",
            title: "Bottleneck Adapters",
            about: "nearly the identity at the start, exactly where U = 0; the two places in a block",
            seed: SEED,
            run: adapter::run,
        },
        Section {
            name: "unified_ia3",
            number: "3.2",
            title: "IA³ (Infused Adapter by Inhibiting and Amplifying Inner Activations)",
            about: "three vectors a layer, each as wide as what it scales",
            seed: SEED,
            run: ia3::run,
        },
    ],
};
