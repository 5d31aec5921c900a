//! What a method is: a configuration, which becomes something that hands out adapters.

use crate::error::Result;
use crate::seam::attention::AttentionAdapter;
use crate::seam::batch::Prompt;
use crate::seam::dims::{Dims, TaskType};
use crate::seam::layer::Adapter;
use crate::seam::naming::short_name;
use crate::seam::params::Params;
use crate::seam::site::{Outline, PREFIX, Site};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use tch::Tensor;

/// What a user writes: the configuration of a method, for whichever model. It becomes a [`Method`] once the model is
/// known. A method that needs nothing from the model is a configuration already: [`Peft::add`](crate::Peft::add) takes
/// either.
pub trait MethodConfig: Debug + Send + Sync {
    /// The method in this model. Checks the configuration, and completes it from the model: default targets, sizes.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a field with a value that has no meaning,
    /// [`Error::NoTarget`](crate::Error::NoTarget) for a name that stands for nothing in the model.
    fn resolve(self: Box<Self>, outline: &Outline) -> Result<Resolved>;
}

impl<M: Method + 'static> MethodConfig for M {
    fn resolve(self: Box<Self>, _: &Outline) -> Result<Resolved> {
        Ok(Resolved { method: self, file: None })
    }
}

/// A method without a file form.
impl<M: Method + 'static> From<M> for Resolved {
    fn from(method: M) -> Self {
        Resolved { method: Box::new(method), file: None }
    }
}

impl<C: MethodConfig + 'static> From<C> for Box<dyn MethodConfig> {
    fn from(config: C) -> Self {
        Box::new(config)
    }
}

/// What a configuration comes to in a model: the method, and what its file says. Made by
/// [`PeftConfig::resolved`](crate::methods::PeftConfig::resolved), or of a method alone by [`From`].
#[derive(Debug)]
pub struct Resolved {
    pub(crate) method: Box<dyn Method>,
    /// The completed configuration; `None` for a method that has no file form.
    pub(crate) file: Option<Arc<dyn FileForm>>,
}

impl Resolved {
    /// The copy of a parameter that the method trains, or that `modules_to_save` names.
    pub(crate) fn overlay(&self, param: &str) -> Option<Overlay> {
        self.method.overlay(param).or_else(|| self.file.as_ref()?.overlay(param))
    }

    /// `adapter_config.json` of an adapter with these tensors; `None` for a method that has no file form.
    pub(crate) fn json(&self, params: &Params) -> Result<Option<Map<String, Value>>> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut json = file.json()?;
        self.method.amend(params, &mut json)?;
        Ok(Some(json))
    }
}

/// What a configuration's file says, whatever the configuration's type.
pub(crate) trait FileForm: Debug + Send + Sync {
    /// The overlay of a parameter that is in `modules_to_save`.
    fn overlay(&self, param: &str) -> Option<Overlay>;
    /// The fields of `adapter_config.json`.
    fn json(&self) -> Result<Map<String, Value>>;
    /// What the adapter is for, if the file says so.
    fn task(&self) -> Option<TaskType>;
}

/// A method in one model: it hands out adapters. Every hook defaults to "nothing", so a method says only what it does.
///
/// The hooks that take a [`Site`] are called by the model's constructor, once a site; they get their parameters from
/// `params`, which makes them on the first call and insists on them afterwards.
///
/// A whole method, `y = s ⊙ (W x + b)` at every linear layer:
///
/// ```
/// use peft_core::seam::{Adapter, Init, Inner, Method, Site};
/// use peft_core::tch::{Device, Tensor};
/// use peft_core::{Params, Peft, Result, models::TinyConfig};
///
/// #[derive(Debug)]
/// struct Scale;
///
/// impl Method for Scale {
///     fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
///         let Some((out, _)) = site.linear() else { return Ok(None) };
///         Ok(Some(Box::new(Outputs(site.param(params, "scale", &[out], Init::Constant(1.0))?))))
///     }
/// }
///
/// #[derive(Debug)]
/// struct Outputs(Tensor);
///
/// impl Adapter for Outputs {
///     fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
///         Ok(inner.forward(x)?.f_mul(&self.0)?)
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let config = TinyConfig::default();
/// let mut peft = Peft::new(config.init(Device::Cpu)?, config)?;
/// peft.add("mine", Scale)?;
/// assert_eq!(peft.status()?.adapters[0].places, 9);
/// # Ok(())
/// # }
/// ```
///
/// It trains, and stacks with others. With an [`Adapter::reweight`] it could be merged as well. With a configuration and a
/// file it is two types: see [`MethodConfig`] and [`PeftConfig`](crate::methods::PeftConfig).
#[expect(unused_variables, reason = "by default a hook does nothing with what it is given")]
pub trait Method: Debug + Send + Sync {
    /// The method's name, for messages and tables; the type's, unless it says otherwise.
    fn name(&self) -> &'static str {
        short_name::<Self>()
    }

    /// An adapter for a layer or a block.
    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        Ok(None)
    }

    /// An adapter for an attention core.
    fn attend(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn AttentionAdapter>>> {
        Ok(None)
    }

    /// Something that rewrites the model's input; `words` is the base's word embedding.
    fn prompt(
        &self,
        dims: &Dims,
        words: Option<&Tensor>,
        params: &Params,
    ) -> Result<Option<Box<dyn Prompt>>> {
        Ok(None)
    }

    /// The copy of this parameter of the base that the method trains, if it does. What `modules_to_save` names is copied
    /// in any case, where the method itself has no copy.
    fn overlay(&self, param: &str) -> Option<Overlay> {
        None
    }

    /// A term to add to the loss.
    fn penalty(&self, params: &Params) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Called after optimizer step `step` (from 1), before the gradients are cleared.
    fn after_step(&self, params: &Params, step: u64) -> Result<()> {
        Ok(())
    }

    /// The tensors of the file.
    fn export(&self, params: &Params) -> Result<BTreeMap<String, Tensor>> {
        Ok(params.tensors())
    }

    /// The inverse of [`Method::export`]: the adapter's tensors from those of a file, which errors call `place`.
    fn import(&self, place: &str, tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        Ok(tensors)
    }

    /// Changes the fields of the file, `adapter_config.json`, where they are not just the configuration's: where the
    /// adapter's tensors say more than it.
    fn amend(&self, params: &Params, file: &mut Map<String, Value>) -> Result<()> {
        Ok(())
    }

    /// Whether a tensor of the adapter, by its name, is not trained (a random projection, say). Such a one may have whole
    /// numbers.
    fn frozen(&self, name: &str) -> bool {
        false
    }

    /// Whether a tensor of the adapter, by its name, has no use: it is kept, so that a file is written as it was read, and
    /// is not trained. Any other tensor that no hook asks for is an error.
    fn inert(&self, name: &str) -> bool {
        false
    }

    /// What PEFT's count of all parameters has beyond the base and the adapter's tensors, or lacks.
    fn uncounted(&self, params: &Params) -> i64 {
        0
    }

    /// Its pairs of low-rank factors, for optimizers that treat the two apart. A pair that the adapter's tensors lack (an
    /// embedding's) is none.
    fn factors(&self) -> Vec<FactorNames> {
        Vec::new()
    }
}

/// A trainable copy of a base parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The copy's name in the adapter's store and file.
    pub key: String,
    pub counting: Counting,
    /// Named by `modules_to_save`, or another weight that is in the file beside the method's own: so it is not what the
    /// method adapts.
    pub saved_beside: bool,
}

impl Overlay {
    /// A copy that stands for the parameter, stored under its name.
    pub fn replacing(param: &str) -> Self {
        Self { key: format!("{PREFIX}{param}"), counting: Counting::Replaces, saved_beside: false }
    }
}

/// Names of two factors, `ΔW = s · B A`.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorNames {
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
