//! Five lessons on parameter-efficient fine-tuning as programs, one a section: each prints what the lesson prints,
//! from numbers that it computes, shows where the lesson is mistaken, and then says in a few lines what to see.
//!
//! A section is a function over a [`Page`], so that tests run what the programs run. [`DOCUMENTS`] is the table of
//! all of them.

pub mod cli;
pub mod layers;
pub mod lesson000;
pub mod lesson001;
pub mod lesson002;
pub mod lesson003;
pub mod lesson004;
pub mod measure;
pub mod numpy;
pub mod page;
pub mod sections;

pub use cli::{Setting, main};
pub use page::{Mistake, Page};
pub use sections::{DOCUMENTS, Document, Section, find};
