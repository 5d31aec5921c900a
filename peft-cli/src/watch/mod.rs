//! What is seen of a training while it runs and after it: metrics as lines of JSON and as TensorBoard events, a progress bar.
//!
//! A training says what happens as [`Event`]s. [`Log`] keeps them, [`Progress`] shows them.

mod board;
mod event;
mod log;
mod progress;

pub use board::DIRECTORY as TENSORBOARD;
pub use event::{Event, Step};
pub use log::{FILE as METRICS, Log, events};
pub use progress::{Pace, Progress, Span};
