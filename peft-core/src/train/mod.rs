//! Training: an optimizer as a value ([`Optim`]), schedules, losses, and the [`Trainer`], whose step ties them together.

mod adam;
mod lora_fa;
mod lora_plus;
mod loss;
mod optim;
mod schedule;
mod shuffle;
mod trainer;

pub use adam::{Adam, AdamConfig, Decay, Group};
pub use lora_fa::{LoraFa, Product};
pub use lora_plus::LoraPlus;
pub use loss::{cross_entropy, next_token_loss};
pub use optim::Optim;
pub use schedule::Schedule;
pub use shuffle::Shuffle;
pub use trainer::{StepReport, Trainer};
