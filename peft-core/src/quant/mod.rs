//! Frozen weights in 4 bits, as QLoRA keeps them. Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>.
//!
//! A storage format of the base, below every method: methods see a dense weight whenever they ask for one, and adapters,
//! gradients and files are what they are over a dense base. The numbers and the files are those of bitsandbytes.

mod config;
pub mod file;
mod nf4;
mod requantised;

pub use config::Nf4Config;
pub(crate) use config::{DTYPES, FIELD};
pub use nf4::Nf4;
pub use requantised::Requantised;
