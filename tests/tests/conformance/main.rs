//! The laws that every method passes, on every model: one table (`tests::table`), one function a law.

mod diff_pruning;
mod files;
mod formulas;
mod numbers;
mod products;
mod prompts;
mod stacks;
mod training;
mod words;
