//! Lesson 000, "Notebook 2 — PEFT Techniques": four techniques over one frozen base, compared with full fine-tuning.
//!
//! Labels are random and the "downstream" data is the pre-training data, so every accuracy is noise around a quarter;
//! what the lesson teaches is the mechanics and the counts. With seed 0 on one thread of an AVX-512 processor every
//! number has the bits of PyTorch 2.11.

mod sections;
mod setup;

pub use sections::{adapter, base_model, comparison, lora, prefix_tuning, prompt_tuning};
pub use setup::{Lesson, TECHNIQUES, Technique};
