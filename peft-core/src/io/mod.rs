//! Files: weights, adapter directories, JSON; read as they are in the wild, and
//! written whole or not at all.

pub mod adapter;
pub(crate) mod directory;
pub(crate) mod dtypes;
pub(crate) mod fields;
pub(crate) mod folder;
pub(crate) mod json;
pub(crate) mod names;
mod pickle;
pub(crate) mod python;
pub(crate) mod saving;
mod stage;
pub mod tensors;
pub(crate) mod token_ids;
pub(crate) mod write;

pub(crate) use dtypes::dtype;
pub(crate) use fields::{Fields, patched};
pub use folder::IfExists;
pub use json::read_json;
pub(crate) use json::{is_special, read_object, shown};
pub(crate) use saving::settle;
pub(crate) use token_ids::TokenIds;
pub use write::{write_atomically, write_json};
