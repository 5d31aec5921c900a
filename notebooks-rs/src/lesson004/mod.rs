//! Lesson 004, "PEFT Methods": LoRA in depth. The document ends after it; DoRA and adapters, which it announces, are here
//! all the same, put to the same test.

mod adapter;
mod arithmetic;
mod change;
mod dora;
mod layer;
mod lora;
mod rank;
mod setup;
mod spectrum;
mod subspaces;
mod transfer;

use crate::{Document, Section};
use anyhow::Result;
use peft_core::seam::PREFIX;
use peft_plot::{Axis, Lines, Series};
use tch::{Device, Kind, Tensor};

pub use layer::Test;
pub use lora::Trace;
pub use setup::redirected;
pub use spectrum::{Spectrum, similarity};

/// The lesson.
pub const DOCUMENT: Document = Document {
    number: "004",
    title: "LoRA in depth",
    sections: &[
        Section {
            name: "depth_setup",
            number: "0",
            title: "Basic Setup",
            about: "the device, and what full fine-tuning of a 7B model would need",
            seed: 0,
            run: setup::setup,
        },
        Section {
            name: "depth_rank",
            number: "1",
            title: "The Background",
            about: "the rank of what fine-tuning changes, measured",
            seed: 0,
            run: rank::rank,
        },
        Section {
            name: "depth_arithmetic",
            number: "1",
            title: "The Core Mathematical Idea",
            about: "how many numbers B A has, and how close it comes",
            seed: 0,
            run: arithmetic::arithmetic,
        },
        Section {
            name: "depth_lora",
            number: "1",
            title: "Initialization Strategy",
            about: "the lesson's LoRA layer and its test, and three starts of A",
            seed: 0,
            run: lora::initialization,
        },
        Section {
            name: "depth_dora",
            number: "2",
            title: "DoRA (announced; the document ends before it)",
            about: "the same test: magnitude and direction apart",
            seed: 0,
            run: dora::dora,
        },
        Section {
            name: "depth_adapter",
            number: "3",
            title: "Adapter Methods (announced; the document ends before them)",
            about: "the same test: a bottleneck behind the layer",
            seed: 0,
            run: adapter::adapter,
        },
    ],
};

/// LoRA's factors as the lesson starts them: `A = 0.01 · randn(r, in)`, `B = 0`.
fn gaussian_start(site: &str, [out, inp]: [i64; 2], r: i64) -> Result<[(String, Tensor); 2]> {
    let float = (Kind::Float, Device::Cpu);
    let a = Tensor::f_randn([r, inp], float)?.f_mul_scalar(0.01)?;
    let b = Tensor::f_zeros([out, r], float)?;
    Ok([(format!("{PREFIX}{site}.lora_A.weight"), a), (format!("{PREFIX}{site}.lora_B.weight"), b)])
}

/// 0.748 as `74.8%`.
fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

fn series(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.into(), points, ..Series::default() }
}

fn lines(title: &str, x: &str, y: &str, series: Vec<Series>) -> Lines {
    let axis = |label: &str| Axis { label: label.into(), ..Axis::default() };
    Lines { title: title.into(), x: axis(x), y: axis(y), series }
}
