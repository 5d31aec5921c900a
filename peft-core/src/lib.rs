//! Parameter-efficient fine-tuning on tch and libtorch.
//!
//! A model is a *view*: cheap handles over the named, frozen tensors of a base and those of the adapters that are
//! active. [`Peft`] owns the base and any number of named adapters; [`Peft::view`] runs the model's constructor and
//! gives a model to call. Attaching, switching, stacking, disabling and merging adapters are all "take another view".
//!
//! ```
//! use peft_core::methods::LoraConfig;
//! use peft_core::models::TinyConfig;
//! use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
//! use peft_core::tch::{self, Device, Kind, Tensor};
//! use peft_core::{Batch, Model, Pass, Peft};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! tch::manual_seed(0);
//! let config = TinyConfig::default();
//! let mut peft = Peft::new(config.init(Device::Cpu)?, config)?; // frozen from here on
//!
//! let lora = LoraConfig { lora_alpha: 8.0, ..LoraConfig::new(4).targets(["ff.0"]) };
//! peft.add("mine", lora)?;
//! assert_eq!(
//!     peft.report(&["mine"])?.to_string(),
//!     "trainable params: 1,280 || all params: 30,020 || trainable%: 4.2638"
//! );
//!
//! let batch = Batch::dense(Tensor::f_randint(100, [16, 10], (Kind::Int64, Device::Cpu))?);
//! let classes = Tensor::f_randint(4, [16], (Kind::Int64, Device::Cpu))?;
//! let model = peft.view(&["mine"])?;
//! let mut trainer = Trainer::new(&peft, &["mine"], AdamConfig::default(), 1e-2, Schedule::Constant)?;
//! for _ in 0..10 {
//!     let loss = cross_entropy(&model.forward(&batch, Pass::train())?, &classes)?;
//!     trainer.step(&loss)?;
//! }
//!
//! let dir = tempfile::tempdir()?;
//! peft.save("mine", dir.path())?; // adapter_config.json and adapter_model.safetensors, as PEFT reads them
//! peft.load("again", dir.path())?;
//! let merged = peft.merged(&["again"])?;
//! let (a, b) = (model.forward(&batch, Pass::eval())?, merged.view(&[])?.forward(&batch, Pass::eval())?);
//! assert!(a.allclose(&b, 1e-5, 1e-5, false));
//! # Ok(())
//! # }
//! ```
//!
//! Who uses adapters finds everything at the root and in
//!
//! - [`methods`]: the methods with their configurations, one file each; [`target`]: where they apply.
//! - [`hub`]: models as the Hub has them, opened and written; [`models`]: their architectures.
//! - [`text`]: tokenizers and data sets; [`train`]: optimizers, schedules, the training step.
//! - [`generate`](mod@generate): text from a causal model.
//! - [`combine`]: several adapters as one; [`quant`]: bases in 4 bits.
//! - [`estimate`]: how much is trained and whether it fits, from a configuration alone.
//! - [`io`]: files of tensors and adapters; [`device`]: where it all runs.
//!
//! Who writes a method implements the traits of [`seam`]. Who brings a model builds it from [`build`].
#![forbid(unsafe_code)]
// Bad input is an error and never a panic. `.ci/run` also keeps out the functions of tch that panic; its operators
// (`&a + &b`) are kept out by the lint on arithmetic.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod check;
pub mod device;
mod error;
pub mod estimate;
pub mod generate;
pub mod hub;
pub mod io;
pub mod methods;
pub mod models;
mod peft;
pub mod program;
pub mod quant;
mod run;
pub mod seam;
pub mod target;
pub mod text;
pub mod train;
mod warning;

/// What a model is built from. For authors of models.
pub mod build {
    pub use crate::run::model::Architecture;
    pub use crate::run::scope::Scope;
    pub use crate::seam::{
        Attended, Attention, Block, Body, Dims, Heads, Init, Input, Layer, Numerics, Project, Prompt, Role,
        Stack, Transformer, Weights, causal_mask,
    };
}

pub use error::{Error, Result};
pub use peft::{
    AdapterStatus, Conversion, Loaded, MergeOptions, Merged, NewRows, Peft, PlainLora, Quantised, Report,
    ReportRow, SiteShare, Status, combine, provenance, report,
};
pub use run::model::Model;
pub use seam::{Batch, Params, Pass, TaskType};
/// The version of tch whose tensors this crate takes and gives.
pub use tch;
pub use warning::Warning;
