//! Training: optimizers over plain tensors, schedules, clipping, and the step that ties them together.

mod optimizer;
mod schedule;
mod trainer;

pub use optimizer::{Adam, AdamConfig, Update};
pub use schedule::Schedule;
pub use trainer::{StepReport, Trainer, cross_entropy, next_token_loss};
