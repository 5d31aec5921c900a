//! Names of the files that a directory is told by.

/// The configuration of a model directory.
pub const MODEL: &str = "config.json";
/// The configuration of an adapter directory.
pub const ADAPTER: &str = "adapter_config.json";
