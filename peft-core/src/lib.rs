//! TODO crate tour
#![forbid(unsafe_code)]

mod attention;
mod device;
mod error;
mod init;
pub mod io;
mod layer;
pub mod methods;
mod model;
pub mod models;
mod params;
mod peft;
mod report;
mod scope;
pub mod target;
pub mod train;

pub use attention::{Attention, AttentionAdapter, AttentionInner, Heads, Project, Softmax};
pub use device::{DeviceChoice, peak_memory, reset_peak_memory, synchronize};
pub use error::{Error, Result};
pub use init::Init;
pub use layer::{Adapter, Base, Block, Body, Inner, Kernel, Layer, Pass, Weights};
pub use methods::Method;
pub use model::{Batch, Dims, Input, Model, Prompt, TaskType};
pub use params::Params;
pub use peft::Peft;
pub use report::{Report, ReportRow, commas};
pub use scope::{Outline, PREFIX, Place, Role, Scope, Site, SiteKind};
