//! A frozen base with named adapters over it.

use crate::methods::Method;
use crate::model::Model;
use crate::params::is_float;
use crate::quant::{Nf4, Nf4Config, weight_name};
use crate::scope::{Active, Build, Scope, replaces};
use crate::site::Outline;
use crate::{Error, Params, Report, Result, io};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// A base model, frozen, and any number of named adapters over it.
///
/// A model is a *view*: [`Peft::view`] runs the model's constructor over the base's tensors and those of the adapters
/// that are named. That is cheap, so switching, stacking, comparing and disabling adapters are all "take another
/// view": there is no state to set, and none to restore. See the crate's page for an example.
#[derive(Debug)]
pub struct Peft<M: Model> {
    base: Params,
    config: M::Config,
    outline: Outline,
    adapters: BTreeMap<String, Adapted>,
}

#[derive(Debug)]
struct Adapted {
    method: Box<dyn Method>,
    params: Params,
}

impl<M: Model> Peft<M> {
    /// Freezes `base` and checks that it is a model of this configuration.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Shape`] and [`Error::Unread`], naming the tensors.
    pub fn new(base: Params, config: M::Config) -> Result<Self> {
        base.freeze()?;
        let build = build::<M>(&base, &config, vec![]);
        M::new(&Scope::root(&build), &config)?;
        let tied: BTreeMap<String, String> = build.tied.into_inner().into_iter().collect();
        let outline = Outline {
            dims: M::dims(&config),
            sites: build.sites.into_inner(),
            params: build.params.into_inner(),
        };
        // A tied parameter is another one's tensor: nothing reads one of its own.
        let read = |n: &String| outline.params.contains(n) && !tied.contains_key(n);
        let unread: Vec<String> = base.numels().into_keys().filter(|n| !read(n)).collect();
        if !unread.is_empty() {
            return Err(Error::Unread { place: base.place().to_owned(), names: unread });
        }
        Ok(Self { base, config, outline, adapters: BTreeMap::new() })
    }

    /// The base's tensors.
    pub fn base(&self) -> &Params {
        &self.base
    }

    /// The model's configuration.
    pub fn config(&self) -> &M::Config {
        &self.config
    }

    /// The model's sites and parameters.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Names of the adapters.
    pub fn names(&self) -> Vec<&str> {
        self.adapters.keys().map(String::as_str).collect()
    }

    /// Adds a fresh adapter; its parameters are drawn now, in the constructor's order.
    ///
    /// # Errors
    /// A name that is taken, a configuration that is wrong, a target that matches nothing.
    pub fn add(&mut self, name: &str, method: impl Into<Box<dyn Method>>) -> Result<()> {
        let method = self.prepare(name, method.into())?;
        let params = Params::new(format!("adapter `{name}`"), self.base.device());
        self.attach(name, method, params)
    }

    /// Adds an adapter with copies of the given tensors, named as in [`Params`]; nothing is drawn. They are cast to f32,
    /// and copies of base parameters to the base's dtype, as PEFT does.
    ///
    /// # Errors
    /// As [`Peft::add`], and for every tensor that is missing, superfluous, of a wrong shape or not of floats.
    pub fn add_with(
        &mut self,
        name: &str,
        method: impl Into<Box<dyn Method>>,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<()> {
        let method = self.prepare(name, method.into())?;
        let params = self.fit(method.as_ref(), format!("adapter `{name}`"), tensors)?;
        self.attach(name, method, params)
    }

    /// Reads an adapter from a directory with `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// As [`Peft::add_with`], naming the file; nothing is added then.
    pub fn load(&mut self, name: &str, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let (method, tensors) = io::adapter::read(dir)?;
        let add = || -> Result<()> {
            let method = self.prepare(name, method)?;
            let place = dir.join(io::adapter::TENSORS).display().to_string();
            let tensors = method.import(&place, tensors)?;
            let params = self.fit(method.as_ref(), place, tensors)?;
            self.attach(name, method, params)
        };
        add().map_err(|e| e.in_file(&dir.join(io::adapter::CONFIG)))
    }

    fn prepare(&self, name: &str, mut method: Box<dyn Method>) -> Result<Box<dyn Method>> {
        self.check_new(name)?;
        method.prepare(&self.outline)?;
        Ok(method)
    }

    pub(crate) fn check_new(&self, name: &str) -> Result<()> {
        match self.adapters.contains_key(name) {
            true => Err(Error::Exists { place: "adapters".into(), name: name.to_owned() }),
            false => Ok(()),
        }
    }

    /// A store of copies of `tensors`, in the dtypes that the method trains. Weights of the base that belong to the file and
    /// are not trained may be missing, as PEFT can leave them out (`save_embedding_layers=False`): they are the base's.
    fn fit(
        &self,
        method: &dyn Method,
        place: String,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<Params> {
        // Key of each overlay, and the parameter of the base that it copies: a tied head's is another one's.
        let source = |p: &String| -> String {
            let site = self.outline.sites.iter().find(|s| p.strip_suffix(".weight") == Some(&s.name));
            site.and_then(|s| s.tied.as_ref()).unwrap_or(p).clone()
        };
        let names = self.outline.params.iter();
        let overlays: BTreeMap<String, String> =
            names.filter_map(|p| Some((method.overlay(p)?.key, source(p)))).collect();
        let fitted = tensors.into_iter().map(|(name, t)| {
            if !is_float(&t) && method.frozen(&name) {
                return Ok((name, t.f_detach_copy()?));
            }
            if !is_float(&t) {
                return Err(Error::Dtype { place: place.clone(), name, found: t.kind() });
            }
            let kind = overlays.get(&name).and_then(|p| self.base.kind(p)).unwrap_or(Kind::Float);
            let own = if t.kind() == kind { t.f_detach_copy()? } else { t.f_detach()?.f_to_kind(kind)? };
            Ok((name, own))
        });
        let params = Params::from_tensors(&place, self.base.device(), fitted.collect::<Result<Vec<_>>>()?)?;
        for (name, source) in overlays.iter().filter(|(name, _)| method.frozen(name)) {
            if let (None, Some(t)) = (params.find(name), self.base.find(source)) {
                params.insert(name, t.f_detach_copy()?, false)?;
            }
        }
        Ok(params)
    }

    /// Runs the constructor with the one adapter: that makes or checks its tensors.
    fn attach(&mut self, name: &str, method: Box<dyn Method>, mut params: Params) -> Result<()> {
        params.set_trainable(|name| !method.frozen(name))?;
        let build = build::<M>(&self.base, &self.config, vec![Active::new(name, method.as_ref(), &params)]);
        M::new(&Scope::root(&build), &self.config)?;
        if build.active.iter().any(|a| a.hits.get() == 0) {
            return Err(Error::Idle { method: method.name() });
        }
        drop(build);
        let unread = params.unread();
        if !unread.is_empty() {
            return Err(Error::Unread { place: params.place().to_owned(), names: unread });
        }
        params.set_trainable(|name| !method.frozen(name))?;
        params.seal();
        self.adapters.insert(name.to_owned(), Adapted { method, params });
        Ok(())
    }

    /// Writes an adapter's two files into `dir`, each whole or not at all. PEFT reads them, if it has the method.
    pub fn save(&self, name: &str, dir: impl AsRef<Path>) -> Result<()> {
        let a = self.adapter(name)?;
        let Some(config) = a.method.config(&a.params)? else {
            let message = "this method has no file form";
            return Err(Error::config(a.method.name(), "adapter_config.json", message));
        };
        io::adapter::write(dir.as_ref(), &config, &a.method.export(&a.params)?)
    }

    /// Removes an adapter.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        self.adapter(name)?;
        self.adapters.remove(name);
        Ok(())
    }

    /// Gives an adapter another name.
    ///
    /// # Errors
    /// A name that is unknown, and a new one that is taken.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<()> {
        self.adapter(name)?;
        self.check_new(new)?;
        if let Some(adapted) = self.adapters.remove(name) {
            self.adapters.insert(new.to_owned(), adapted);
        }
        Ok(())
    }

    fn adapter(&self, name: &str) -> Result<&Adapted> {
        self.adapters.get(name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        Error::UnknownAdapter { name: name.to_owned(), known: self.adapters.keys().cloned().collect() }
    }

    pub(crate) fn active(&self, names: &[&str]) -> Result<Vec<Active<'_>>> {
        if let Some(twice) = names.iter().enumerate().find(|(i, n)| names.iter().take(*i).any(|m| m == *n)) {
            return Err(Error::Exists { place: "active adapters".into(), name: (*twice.1).to_owned() });
        }
        names.iter().map(|n| self.one_active(n)).collect()
    }

    fn one_active(&self, name: &str) -> Result<Active<'_>> {
        match self.adapters.get_key_value(name) {
            Some((name, a)) => Ok(Active::new(name, a.method.as_ref(), &a.params)),
            None => Err(self.unknown(name)),
        }
    }

    /// The method of an adapter, completed from the model.
    pub fn method(&self, name: &str) -> Result<&dyn Method> {
        Ok(self.adapter(name)?.method.as_ref())
    }

    /// The tensors of an adapter.
    pub fn params(&self, name: &str) -> Result<&Params> {
        Ok(&self.adapter(name)?.params)
    }

    /// The model with the named adapters, the first one innermost.
    ///
    /// # Errors
    /// A name that is unknown, or there twice; [`Error::Overlap`] for two that train the same tokens' rows.
    pub fn view(&self, active: &[&str]) -> Result<M> {
        let active = self.active(active)?;
        M::new(&Scope::root(&build::<M>(&self.base, &self.config, active)), &self.config)
    }

    /// The trainable tensors of the named adapters, for an optimizer.
    pub fn trainable(&self, active: &[&str]) -> Result<Vec<(String, Tensor)>> {
        Ok(self.active(active)?.iter().flat_map(|a| a.params.trainable()).collect())
    }

    /// Extra loss of the named adapters, if they have any.
    pub fn penalty(&self, active: &[&str]) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for a in self.active(active)? {
            if let Some(term) = a.method.penalty(a.params)? {
                sum = Some(match sum {
                    Some(s) => s.f_add(&term)?,
                    None => term,
                });
            }
        }
        Ok(sum)
    }

    /// Tells the named adapters that optimizer step `step` (from 1) is done.
    pub fn after_step(&self, active: &[&str], step: u64) -> Result<()> {
        self.active(active)?.iter().try_for_each(|a| a.method.after_step(a.params, step))
    }

    /// Counts parameters, as PEFT's `print_trainable_parameters` does.
    pub fn report(&self, active: &[&str]) -> Result<Report> {
        let active = self.active(active)?;
        let shadowed = |name: &str| active.iter().any(|a| replaces(a.method, name));
        let base = self.base.numels().into_iter().filter(|(n, _)| !shadowed(n)).map(|(_, numel)| numel);
        let own = active.iter().flat_map(|a| a.params.numels().into_values());
        let more = active.iter().map(|a| a.method.uncounted(a.params));
        let trained = active.iter().flat_map(|a| a.params.trainable()).map(|(n, t)| (n, t.size()));
        Ok(Report::new(base.chain(own).chain(more).sum(), &trained.collect::<Vec<_>>()))
    }

    /// The same model with its base in another dtype, without adapters.
    pub fn to_kind(&self, kind: Kind) -> Result<Self> {
        Self::new(self.base.to_kind(kind)?, self.config.clone())
    }

    /// The same model with its linear layers in 4 bits, without adapters.
    ///
    /// # Errors
    /// A model that has weights in 4 bits already; a weight that is not finite; a wrong configuration.
    pub fn quantised(&self, config: &Nf4Config) -> Result<Self> {
        if let Some(name) = self.base.packed().into_keys().next() {
            return Err(Error::Exists { place: format!("{}: 4-bit weights", self.base.place()), name });
        }
        let mut dense = self.base.tensors();
        let mut packed = Vec::new();
        for site in config.linears(&self.outline, |name| dense.contains_key(name))? {
            let name = weight_name(site);
            if let Some(w) = dense.remove(&name) {
                let w = if site.transposed { w.f_tr()? } else { w };
                packed.push((Nf4::quantise(&name, &w, config)?, name));
            }
        }
        let dense = dense.into_iter().map(|(name, t)| Ok((name, t.f_detach_copy()?)));
        let dense = dense.collect::<Result<Vec<_>>>()?;
        let params = Params::from_tensors(self.base.place(), self.base.device(), dense)?;
        packed.iter().try_for_each(|(w, name)| params.insert_packed(name, w))?;
        Self::new(params, self.config.clone())
    }
}

pub(crate) fn build<'a, M: Model>(
    base: &'a Params,
    config: &M::Config,
    active: Vec<Active<'a>>,
) -> Build<'a> {
    Build {
        base,
        dims: M::dims(config),
        active,
        sites: RefCell::default(),
        params: RefCell::default(),
        tied: RefCell::default(),
        watch: None,
    }
}
