//! Files: weights, adapter directories, Hub model directories, tokenizers, training data; read as they are in the wild, and
//! written whole or not at all.

pub mod adapter;
pub(crate) mod directory;
pub(crate) mod dtypes;
mod heads;
pub mod hub;
mod hub_model;
mod json;
mod model_dir;
mod pickle;
mod place;
mod quantised;
mod saving;
mod shards;
mod stage;
pub mod tensors;
pub mod text;
pub(crate) mod token_ids;
pub(crate) mod tokenizer;
mod write;

pub use json::read_json;
pub(crate) use json::{is_special, read_object, shown};
pub use place::IfExists;
pub(crate) use saving::settle;
pub use write::{write_atomically, write_json};
