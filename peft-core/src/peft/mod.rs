//! A frozen base with named adapters over it.

mod adapted;
mod attach;
mod classes;
pub mod combine;
mod kept;
mod load;
mod merge;
mod mixed;
pub mod provenance;
pub(crate) mod quantised;
pub mod report;
mod resize;
mod status;
mod to_lora;

pub(crate) use adapted::{Adapted, penalty};
pub use merge::{MergeOptions, Merged, Quantised};
pub use report::{Report, ReportRow};
pub use resize::NewRows;
pub use status::{AdapterStatus, Loaded, Status};
pub use to_lora::{Conversion, PlainLora, SiteShare};

use crate::error::{Error, Result};
use crate::methods::read::Readers;
use crate::run::{Active, Architecture, Model, Rewrite, Run, Scope, Tied};
use crate::seam::{Method, Numerics, Outline, Params};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// A base model, frozen, and any number of named adapters over it.
///
/// A model is a *view*: [`Peft::view`] runs the model's constructor over the base's tensors and those of the adapters
/// that are named. That is cheap, so switching, stacking, comparing and disabling adapters are all "take another
/// view": there is no state to set, and none to restore. See the crate's page for an example.
#[derive(Debug)]
pub struct Peft {
    base: Params,
    architecture: Arc<dyn Architecture>,
    outline: Outline,
    readers: Readers,
    numerics: Numerics,
    /// Shared with the trainers: those go on with their adapter, whatever becomes of its name.
    pub(crate) adapters: BTreeMap<String, Arc<Adapted>>,
}

impl Peft {
    /// Freezes `base` and checks that it is a model of this architecture.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Shape`] and [`Error::Unread`], naming the tensors.
    pub fn new(base: Params, architecture: impl Into<Box<dyn Architecture>>) -> Result<Self> {
        Self::of(base, architecture.into().into())
    }

    /// As [`Peft::new`], of an architecture that is shared.
    pub(crate) fn of(base: Params, architecture: Arc<dyn Architecture>) -> Result<Self> {
        base.freeze()?;
        let dims = architecture.dims();
        let numerics = architecture.numerics();
        let run = Run::new(&base, &dims, numerics, vec![]);
        architecture.build(&Scope::root(&run))?;
        let tied: BTreeMap<String, String> = run.tied.into_inner().into_iter().collect();
        let (sites, params, bare) = (run.sites.into_inner(), run.params.into_inner(), run.bare.into_inner());
        let times = |all: &[String], name: &String| all.iter().filter(|n| *n == name).count();
        if let Some(name) = bare.iter().find(|name| times(&params, name) > times(&bare, name)) {
            let message = "is a layer's, and is taken by `Scope::param` as well, where what adapts the layer would not \
                           count: take the layer";
            return Err(Error::config("the model", name, message));
        }
        let outline = Outline { dims, sites, params };
        // A tied parameter is another one's tensor: nothing reads one of its own.
        let read = |n: &String| outline.params.contains(n) && !tied.contains_key(n);
        let unread: Vec<String> = base.numels().into_keys().filter(|n| !read(n)).collect();
        if !unread.is_empty() {
            return Err(Error::Unread { place: base.label().to_owned(), names: unread });
        }
        let readers = Readers::default();
        Ok(Self { base, architecture, outline, readers, numerics, adapters: BTreeMap::new() })
    }

    /// A model made of this one, without adapters. It reads the files of the same methods, and computes with the same
    /// numerics.
    pub(crate) fn remade(&self, base: Params, architecture: Arc<dyn Architecture>) -> Result<Self> {
        let (readers, numerics) = (self.readers.clone(), self.numerics);
        Ok(Self { readers, numerics, ..Self::of(base, architecture)? })
    }

    /// The base's tensors.
    pub fn base(&self) -> &Params {
        &self.base
    }

    /// As [`Peft::architecture`], shared.
    pub(crate) fn shared(&self) -> Arc<dyn Architecture> {
        self.architecture.clone()
    }

    /// The model's architecture.
    pub fn architecture(&self) -> &dyn Architecture {
        self.architecture.as_ref()
    }

    /// The same model over another base, without adapters.
    ///
    /// # Errors
    /// As [`Peft::new`].
    pub fn over(&self, base: Params) -> Result<Self> {
        self.remade(base, self.architecture.clone())
    }

    /// The same model, whose views and trainers compute with other [`Numerics`] from now on.
    ///
    /// ```
    /// # use peft_core::{Peft, models::TinyConfig, seam::Numerics};
    /// # fn main() -> peft_core::Result<()> {
    /// let config = TinyConfig::default();
    /// let peft = Peft::new(config.init(peft_core::tch::Device::Cpu)?, config)?;
    /// assert_eq!(peft.numerics(), Numerics::Exact); // of the tiny model, which has the bits of a Python program
    /// let peft = peft.with_numerics(Numerics::Fast);
    /// # assert_eq!(peft.numerics(), Numerics::Fast);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_numerics(self, numerics: Numerics) -> Self {
        Self { numerics, ..self }
    }

    /// What views and trainers compute with; the architecture's, unless [`Peft::with_numerics`] has said otherwise.
    pub fn numerics(&self) -> Numerics {
        self.numerics
    }

    /// The model's sites and parameters.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// An adapter, with its name as it is held here.
    fn entry(&self, name: &str) -> Result<(&String, &Arc<Adapted>)> {
        self.adapters.get_key_value(name).ok_or_else(|| Error::UnknownAdapter {
            name: name.to_owned(),
            known: self.adapters.keys().cloned().collect(),
        })
    }

    pub(crate) fn adapter(&self, name: &str) -> Result<&Adapted> {
        self.entry(name).map(|(_, adapted)| adapted.as_ref())
    }

    /// The named adapters, to be held beside this.
    pub(crate) fn adapted(&self, names: &[&str]) -> Result<Vec<Arc<Adapted>>> {
        self.active(names)?;
        names.iter().map(|name| self.entry(name).map(|(_, adapted)| Arc::clone(adapted))).collect()
    }

    pub(crate) fn active(&self, names: &[&str]) -> Result<Vec<Active<'_>>> {
        if let Some(twice) = names.iter().enumerate().find(|(i, n)| names.iter().take(*i).any(|m| m == *n)) {
            return Err(Error::Exists { place: "active adapters".into(), name: (*twice.1).to_owned() });
        }
        names.iter().map(|name| self.entry(name).map(|(name, adapted)| adapted.active(name))).collect()
    }

    /// The method of an adapter, completed from the model.
    pub fn method(&self, name: &str) -> Result<&dyn Method> {
        Ok(self.adapter(name)?.resolved.method.as_ref())
    }

    /// What the `adapter_config.json` of an adapter says, whether it is saved or not; `None` for a method that has no file
    /// form.
    pub fn adapter_config(&self, name: &str) -> Result<Option<Value>> {
        self.adapter(name)?.file()
    }

    /// The tensors of an adapter.
    pub fn params(&self, name: &str) -> Result<&Params> {
        Ok(&self.adapter(name)?.params)
    }

    /// The model with the named adapters, the first one innermost.
    ///
    /// # Errors
    /// A name that is unknown, or there twice; [`Error::Overlap`] for two that train the same tokens' rows.
    pub fn view(&self, active: &[&str]) -> Result<Box<dyn Model>> {
        self.view_as(active, |scope| self.architecture.build(scope))
    }

    /// As [`Peft::view`], by a constructor of one's own: a view is whatever that makes of the base and the adapters. So
    /// who wrote a model gets it with its own type, and its parts.
    ///
    /// ```
    /// # use peft_core::{Peft, models::{Tiny, TinyConfig}};
    /// # fn main() -> peft_core::Result<()> {
    /// let config = TinyConfig::default();
    /// let peft = Peft::new(config.init(peft_core::tch::Device::Cpu)?, config.clone())?;
    /// let tiny: Tiny = peft.view_as(&[], |scope| Tiny::new(scope, &config))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Peft::view`], and what `constructor` says.
    pub fn view_as<T>(
        &self,
        active: &[&str],
        constructor: impl FnOnce(&Scope<'_>) -> Result<T>,
    ) -> Result<T> {
        constructor(&Scope::root(&self.run(self.active(active)?)))
    }

    /// A run of the constructor that is yet to be made.
    pub(crate) fn run<'a>(&'a self, active: Vec<Active<'a>>) -> Run<'a> {
        Run::new(&self.base, &self.outline.dims, self.numerics, active)
    }

    /// Runs the constructor with the adapters while `rewrite` sees every layer; gives the view, and the parameters that
    /// are another one's tensor, with the other's name.
    pub(crate) fn rewritten(
        &self,
        active: Vec<Active<'_>>,
        rewrite: &dyn Rewrite,
    ) -> Result<(Box<dyn Model>, Tied)> {
        let run = Run { rewrite: Some(rewrite), ..self.run(active) };
        let view = self.architecture.build(&Scope::root(&run))?;
        Ok((view, run.tied.into_inner()))
    }

    /// The trainable tensors of the named adapters, for an optimizer. Adapters that are alike have tensors of the same names.
    pub fn trainable(&self, active: &[&str]) -> Result<Vec<(String, Tensor)>> {
        Ok(self.active(active)?.iter().flat_map(|a| a.params.trainable()).collect())
    }

    /// Extra loss of the named adapters, if they have any.
    pub fn penalty(&self, active: &[&str]) -> Result<Option<Tensor>> {
        penalty(self.active(active)?.iter().map(|a| (a.method(), a.params)))
    }

    /// Tells the named adapters that optimizer step `step` (from 1) is done.
    pub fn after_step(&self, active: &[&str], step: u64) -> Result<()> {
        self.active(active)?.iter().try_for_each(|a| a.method().after_step(a.params, step))
    }

    /// Counts parameters, as PEFT's `print_trainable_parameters` does.
    pub fn report(&self, active: &[&str]) -> Result<Report> {
        Ok(self.count(&self.active(active)?))
    }

    pub(crate) fn count(&self, active: &[Active<'_>]) -> Report {
        let shadowed = |name: &str| active.iter().any(|a| a.replaces(name));
        let base = self.base.numels().into_iter().filter(|(n, _)| !shadowed(n)).map(|(_, numel)| numel);
        let own = active.iter().flat_map(|a| a.params.numels().into_values());
        let carried = active.iter().filter_map(|a| Some(a.carried?.uncounted(a.params)));
        let more = active.iter().map(|a| a.method().uncounted(a.params)).chain(carried);
        let all = base.chain(own).chain(more).fold(0, i64::saturating_add);
        let trained = active.iter().flat_map(|a| a.params.trainable()).map(|(n, t)| (n, t.size()));
        Report::new(all, &trained.collect::<Vec<_>>())
    }

    /// The same model with its base in another dtype, without adapters.
    pub fn to_kind(&self, kind: Kind) -> Result<Self> {
        self.over(self.base.to_kind(kind)?)
    }
}
