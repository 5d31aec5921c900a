//! What may rewrite a model while its constructor runs: merging, mixed batches and conversions are a constructor's run that
//! somebody looks over.

use crate::error::{Error, Result};
use crate::run::active::Active;
use crate::seam::{Layer, Overlay};
use std::fmt::Debug;
use tch::Tensor;

/// Sees what the active adapters put where.
pub(crate) trait Rewrite: Debug {
    /// A layer, before the model gets it: its adapters may be replaced.
    fn layer(&self, layer: &mut Layer, origin: &Origin<'_>) -> Result<()>;

    /// Parameter `name` has the second value, an active adapter's copy, in place of the first, the base's. A parameter is
    /// seen once, before the layer that it belongs to, if it belongs to one.
    fn param(&self, name: &str, values: [&Tensor; 2], copy: Copied<'_>) -> Result<()>;

    /// As [`Rewrite::param`], of a copy that does not count: another active adapter's hides it.
    fn hidden(&self, name: &str, values: [&Tensor; 2], copy: Copied<'_>) -> Result<()> {
        let _ = (name, values, copy);
        Ok(())
    }

    /// Parameter `name` is another one's tensor (a tied head), and has that one's copy, the second value, where an active
    /// adapter has one; else both values are the base's.
    fn tied(&self, name: &str, values: [&Tensor; 2], copy: Option<Copied<'_>>) -> Result<()>;

    /// An adapter around something without weights (a block, an attention core, the input) is in the way: the error
    /// that says so.
    fn refuse(&self, site: &str, method: &'static str) -> Error;
}

/// Whose copy of a parameter it is, and what kind of one.
pub(crate) type Copied<'a> = (&'a Active<'a>, &'a Overlay);

/// Where a layer's weights come from, and its adapters.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// Full names of the parameters.
    pub weight: String,
    pub bias: Option<String>,
    /// The weight is stored as `[in, out]`.
    pub transposed: bool,
    /// The input does not have the batch in front.
    pub length_first: bool,
    /// The adapter that each of the layer's adapters belongs to.
    pub owners: Vec<&'a Active<'a>>,
}
