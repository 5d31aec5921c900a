//! What a method is: a configuration that hands out adapters.

use crate::error::Result;
use crate::seam::attention::AttentionAdapter;
use crate::seam::batch::Prompt;
use crate::seam::dims::{Dims, TaskType};
use crate::seam::layer::Adapter;
use crate::seam::params::Params;
use crate::seam::site::{Outline, PREFIX, Site};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use tch::Tensor;

/// A method with its configuration. Every hook defaults to "nothing", so a method says only what it does.
///
/// The hooks that take a [`Site`] are called by the model's constructor, once a site; they get their parameters from
/// `params`, which makes them on the first call and insists on them afterwards.
pub trait Method: Debug + Send + Sync {
    /// The method's name, for messages and tables.
    fn name(&self) -> &'static str;

    /// Checks the configuration and completes it from the model: default targets, sizes.
    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        let _ = outline;
        Ok(())
    }

    /// An adapter for a layer or a block.
    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let _ = (site, params);
        Ok(None)
    }

    /// An adapter for an attention core.
    fn attend(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn AttentionAdapter>>> {
        let _ = (site, params);
        Ok(None)
    }

    /// Something that rewrites the model's input; `words` is the base's word embedding.
    fn prompt(
        &self,
        dims: &Dims,
        words: Option<&Tensor>,
        params: &Params,
    ) -> Result<Option<Box<dyn Prompt>>> {
        let _ = (dims, words, params);
        Ok(None)
    }

    /// Whether a trainable copy shadows this parameter of the base. By default, what `modules_to_save` names.
    fn overlay(&self, param: &str) -> Option<Overlay> {
        self.file().and_then(|file| file.overlay(param))
    }

    /// The tokens whose rows of layer `site` are replaced: no two active adapters may have the same.
    fn tokens(&self, site: &str) -> &[i64] {
        let _ = site;
        &[]
    }

    /// A term to add to the loss.
    fn penalty(&self, params: &Params) -> Result<Option<Tensor>> {
        let _ = params;
        Ok(None)
    }

    /// Called after optimizer step `step` (from 1), before the gradients are cleared.
    fn after_step(&self, params: &Params, step: u64) -> Result<()> {
        let _ = (params, step);
        Ok(())
    }

    /// What is written to the file.
    fn export(&self, params: &Params) -> Result<BTreeMap<String, Tensor>> {
        Ok(params.tensors())
    }

    /// The inverse of [`Method::export`]: the adapter's tensors from those of a file, which errors call `place`.
    fn import(&self, place: &str, tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let _ = place;
        Ok(tensors)
    }

    /// Whether a tensor of the adapter, by its name, is not trained (a random projection, say). Such a one may have whole
    /// numbers.
    fn frozen(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// What PEFT's count of all parameters has beyond the base and the adapter's tensors, or lacks.
    fn uncounted(&self, params: &Params) -> i64 {
        let _ = params;
        0
    }

    /// Its pairs of low-rank factors, for optimizers that treat the two apart. A pair that the adapter's tensors lack (an
    /// embedding's) is none.
    fn factors(&self) -> Vec<Factors> {
        Vec::new()
    }

    /// What is written to `adapter_config.json`; `None` for a method that has no file form.
    fn config(&self, params: &Params) -> Result<Option<Value>> {
        let _ = params;
        self.file().map(FileForm::json).transpose()
    }

    /// The file form: `Some(self)` for a [`PeftConfig`].
    fn file(&self) -> Option<&dyn FileForm> {
        None
    }
}

impl<M: Method + 'static> From<M> for Box<dyn Method> {
    fn from(method: M) -> Self {
        Box::new(method)
    }
}

/// A trainable copy of a base parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The copy's name in the adapter's store and file.
    pub key: String,
    pub counting: Counting,
    /// Trained beside the method (a head), so that it is not what the method adapts.
    pub beside: bool,
}

impl Overlay {
    /// A copy that stands for the parameter, stored under its name.
    pub fn replacing(param: &str) -> Self {
        Self { key: format!("{PREFIX}{param}"), counting: Counting::Replaces, beside: false }
    }
}

/// Names of two factors, `ΔW = s · B A`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    pub a: String,
    pub b: String,
    pub scaling: f64,
}

/// How an overlay enters the count of all parameters. Either way the base itself stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Copy and original both count, as for PEFT's `modules_to_save`.
    Adds,
    /// The copy stands for the original, as when a parameter of the model itself is trained.
    Replaces,
}

/// What a [`PeftConfig`] gives a [`Method`], without its type.
pub trait FileForm {
    /// The overlay of a parameter that is in `modules_to_save`.
    fn overlay(&self, param: &str) -> Option<Overlay>;
    /// `adapter_config.json`.
    fn json(&self) -> Result<Value>;
    /// What the adapter is for, if the file says so.
    fn task(&self) -> Option<TaskType>;
}
