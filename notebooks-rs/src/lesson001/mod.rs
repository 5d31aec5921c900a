//! Lesson 001, "PEFT Unified": the methods as classes of their own, without a run. The lesson has no seed, so it is 19
//! here; its classes, with that seed, have the bits of PyTorch 2.11.

pub mod adapter;
pub mod apply;
mod attended;
mod catalogue;
pub mod dora;
mod dora_fit;
mod entries;
pub mod flow;
pub mod ia3;
pub mod lora;
mod measure;
mod memory;
mod parameters;
pub mod prefix;
pub mod prompt;
mod qlora;
mod quantised;
pub mod ranking;
mod ranks;
pub mod selection;
mod small_llama;
mod task;
mod taxonomy;
mod text;
mod training;

use crate::{Document, Section};
use peft_core::estimate::Blueprint;
use serde_json::json;

/// Where the lesson has none.
const SEED: i64 = 19;

/// The lesson.
pub const DOCUMENT: Document = Document {
    number: "001",
    title: "PEFT, unified",
    sections: &[
        Section {
            name: "unified_memory",
            number: "1.1",
            title: "Why PEFT?",
            about: "what full fine-tuning, LoRA and QLoRA of LLaMA-7B hold in memory",
            seed: SEED,
            run: memory::run,
        },
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
        Section {
            name: "unified_prefix",
            number: "4.1",
            title: "Prefix Tuning",
            about: "keys and values before the words' own, made by a network; where the attention goes",
            seed: SEED,
            run: prefix::run,
        },
        Section {
            name: "unified_prompt",
            number: "4.2",
            title: "Prompt Tuning",
            about: "vectors before the words: drawn, taken from the vocabulary, from a text",
            seed: SEED,
            run: prompt::run,
        },
        Section {
            name: "unified_training",
            number: "5",
            title: "Using HuggingFace PEFT",
            about: "configure, train, save, load and merge, from end to end",
            seed: SEED,
            run: training::run,
        },
        Section {
            name: "unified_parameters",
            number: "6.1",
            title: "Parameter Efficiency",
            about: "the lesson's table recomputed for LLaMA-7B, and where it is wrong",
            seed: SEED,
            run: parameters::run,
        },
        Section {
            name: "unified_ranking",
            number: "6.2",
            title: "Performance Comparison",
            about: "the lesson's ranking beside one that is measured on real text",
            seed: SEED,
            run: ranking::run,
        },
        Section {
            name: "unified_selection",
            number: "6.3",
            title: "Selection Guide",
            about: "the lesson's rule and the library's, on twelve cases",
            seed: SEED,
            run: selection::run,
        },
    ],
};

/// LLaMA-7B, of which only the configuration is needed.
fn llama() -> anyhow::Result<Blueprint> {
    let json = json!({
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32
    });
    Ok(Blueprint::read(&json, "LLaMA-7B")?)
}
