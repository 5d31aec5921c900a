//! What this crate asks of a model: a pure constructor over a [`Scope`], and a forward pass.

use crate::error::Result;
use crate::run::scope::Scope;
use crate::seam::batch::Batch;
use crate::seam::dims::Dims;
use crate::seam::pass::Pass;
use std::fmt::Debug;
use tch::Tensor;

/// An architecture. Its constructor is the visitor that finds the sites: it is run again for every view, so it draws
/// nothing at random, reads no file and computes nothing large.
pub trait Model: Debug + Send + Sized + 'static {
    /// What tells two models of the family apart (the Hub's `config.json`).
    type Config: Debug + Clone + Send + Sync;

    /// The sizes that methods need.
    fn dims(config: &Self::Config) -> Dims;

    /// A view of the model in `scope`.
    fn new(scope: &Scope<'_>, config: &Self::Config) -> Result<Self>;

    /// Logits for a batch: `[batch, classes]`, or `[batch, virtual tokens + length, vocab]` of a causal model.
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor>;

    /// The same configuration for a model whose head is no longer tied to its word embedding.
    fn untied(config: &Self::Config) -> Self::Config {
        config.clone()
    }

    /// The same configuration with another size of the vocabulary; `None` where that is fixed.
    fn resized(config: &Self::Config, vocab: i64) -> Option<Self::Config> {
        let _ = (config, vocab);
        None
    }
}
