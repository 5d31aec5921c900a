//! Training: an optimizer as a value ([`Optim`]), schedules, losses; a [`Run`], which owns all that a training is, and is
//! saved and resumed; and the [`Trainer`] underneath, one step for loops of one's own.

mod adam;
mod checkpoint;
mod checkpoints;
mod cursor;
mod evaluate;
mod lora_fa;
mod lora_plus;
mod loss;
mod optim;
mod run;
mod schedule;
mod scores;
mod shuffle;
mod state;
mod streams;
mod task;
mod trainer;

pub use adam::{Adam, AdamConfig, Decay, Group};
pub use checkpoint::Checkpoint;
pub use checkpoints::{Checkpoints, Newest};
pub use cursor::Order;
pub use evaluate::{evaluate, evaluate_while};
pub use lora_fa::{LoraFa, Product};
pub use lora_plus::LoraPlus;
pub use loss::{cross_entropy, next_token_loss, squared_error};
pub use optim::Optim;
pub use run::{Recipe, Run, Step};
pub use schedule::Schedule;
pub use scores::{Evaluation, Scores};
pub use shuffle::Shuffle;
pub use task::Task;
pub use trainer::{StepReport, Trainer};
