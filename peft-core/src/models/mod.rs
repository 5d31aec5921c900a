//! The architectures, one file each.

pub mod bert;
pub mod tiny;

pub use bert::{Bert, BertConfig};
pub use tiny::{Tiny, TinyConfig};
