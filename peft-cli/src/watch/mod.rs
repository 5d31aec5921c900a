//! What is seen of a training while it runs and after it: metrics as lines of JSON and as TensorBoard events, a progress bar,
//! and at the end a page.
//!
//! A training says what happens as [`Event`]s. [`Log`] keeps them, [`Progress`] shows them, and [`report`] draws them.

mod board;
mod curves;
mod event;
mod log;
mod progress;
pub mod report;
pub mod summary;

pub use board::DIRECTORY as TENSORBOARD;
pub use event::{Event, Step};
pub use log::{FILE as METRICS, Log, events};
pub use progress::{Pace, Progress, Span};
pub use summary::{Run, Summary};
