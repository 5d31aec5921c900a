//! Will it fit, and how much is trained? Answers from a model's configuration alone, before anything is downloaded.
//!
//! ```
//! use peft_core::estimate::{Blueprint, Setup};
//! use peft_core::methods::LoraConfig;
//!
//! # fn main() -> peft_core::Result<()> {
//! let json = serde_json::json!({
//!     "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
//!     "num_hidden_layers": 32, "num_attention_heads": 32
//! });
//! let llama = Blueprint::read(&json, "LLaMA-7B")?; // `Blueprint::open(dir)` for a directory with a config.json
//! assert_eq!(llama.parameters(), 6_738_415_616);
//! let lora = llama.estimate(LoraConfig::default(), &Setup::default())?; // r = 8 at q and v, over bf16
//! assert_eq!(lora.report.trainable, 4_194_304);
//! assert_eq!(lora.memory.base, 13_476_831_232);
//! assert_eq!(lora.memory.adapter, 16_777_216);
//! # Ok(())
//! # }
//! ```
//!
//! There is no formula for any method or family here. The model's constructor runs over a base whose tensors have shapes
//! and no numbers, with an adapter of the same kind: what is counted is what the library would make, for every method
//! and every model, one's own included. The conformance tests hold it against formulas and real models.

mod activations;
mod blueprint;
mod memory;
mod probe;
mod recommend;
mod smaller;

pub use activations::Plan;
pub use blueprint::{Blueprint, Estimate};
pub use memory::{Memory, Optimizer, Setup, Storage, human_bytes};
pub use probe::Shape;
pub use recommend::{Choice, Need, Recommendation, recommend};
