//! Five lessons on parameter-efficient fine-tuning as programs, one a section: each prints what the lesson prints,
//! from numbers that it computes, and then says in a few lines what to see.
//!
//! A section is a function over a [`Page`], so that tests run what the binaries run.

pub mod cli;
pub mod lesson000;
pub mod page;

pub use cli::{Options, main};
pub use page::Page;
