//! Training: optimizers over plain tensors, schedules, clipping, and the step that ties them together.

mod lora_fa;
mod lora_plus;
mod loss;
mod optimizer;
mod schedule;
mod trainer;

pub use lora_fa::{LoraFa, Product};
pub use lora_plus::LoraPlus;
pub use loss::{cross_entropy, next_token_loss};
pub use optimizer::{Adam, AdamConfig, Decay, Group, Update};
pub use schedule::Schedule;
pub use trainer::{StepReport, Trainer};
