//! An adapter as a model holds it.

use crate::error::Result;
use crate::io::adapter::Files;
use crate::peft::kept::Kept;
use crate::run::{Active, Carried};
use crate::seam::{Method, Params, Resolved, plus};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::Tensor;

/// The sum of the terms that adapters add to the loss, if any of them does.
pub(crate) fn penalty<'a>(
    adapters: impl IntoIterator<Item = (&'a dyn Method, &'a Params)>,
) -> Result<Option<Tensor>> {
    adapters
        .into_iter()
        .try_fold(None, |sum: Option<Tensor>, (method, params)| plus(sum, method.penalty(params)?))
}

/// An adapter: its configuration, completed from the model, and its tensors.
#[derive(Debug)]
pub(crate) struct Adapted {
    pub resolved: Resolved,
    pub params: Params,
    /// Weights of the base that its file had beside.
    pub carried: Carried,
    /// What its file had beyond what the method writes.
    pub kept: Kept,
    /// Names of the classes that it was trained with; empty where there are none.
    pub classes: Vec<String>,
}

impl Adapted {
    /// One that comes from no file.
    pub fn fresh(resolved: Resolved, params: Params) -> Self {
        let (carried, kept) = (Carried::default(), Kept::default());
        Self { resolved, params, carried, kept, classes: Vec::new() }
    }

    /// Its `adapter_config.json`; `None` for a method that has no file form.
    pub fn file(&self) -> Result<Option<Value>> {
        let mut fields = self.resolved.json(&self.params)?;
        fields.iter_mut().for_each(|fields| self.kept.restore(fields));
        Ok(fields.map(Value::Object))
    }

    /// Its files; `None` for a method that has no file form.
    pub fn files(&self) -> Result<Option<Files>> {
        let Some(config) = self.file()? else { return Ok(None) };
        Ok(Some(Files { config, tensors: self.export()?, classes: self.classes.clone(), provenance: None }))
    }

    /// Its file's tensors.
    fn export(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.resolved.method.export(&self.params)?;
        self.carried.export(&self.params.tensors(), &mut tensors)?;
        Ok(tensors)
    }

    /// Has gradients computed for what the method trains and `wanted` accepts, whatever had them before.
    pub fn train(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let active = self.active("");
        self.params.set_trainable(|key| !active.frozen(key) && wanted(key)).map(drop)
    }

    /// As an adapter of a view.
    pub fn active<'a>(&'a self, name: &'a str) -> Active<'a> {
        Active { carried: Some(&self.carried), ..Active::new(name, &self.resolved, &self.params) }
    }
}
