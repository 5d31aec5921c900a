//! How an adapter comes to a model: fresh, or from tensors. How it comes from a directory is in [`load`](crate::peft::load).

use crate::error::{Error, Result};
use crate::peft::kept::Kept;
use crate::peft::{Adapted, Peft};
use crate::run::{Carried, Scope};
use crate::seam::{FileForm, MethodConfig, Params, Resolved, is_float};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

impl Peft {
    /// Adds a fresh adapter; its parameters are drawn now, in the constructor's order.
    ///
    /// # Errors
    /// A name that is taken, a configuration that is wrong, a target that matches nothing.
    pub fn add(&mut self, name: &str, config: impl Into<Box<dyn MethodConfig>>) -> Result<()> {
        let method = self.resolve(name, config.into())?;
        let params = Params::new(format!("adapter `{name}`"), self.base().device());
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
        config: impl Into<Box<dyn MethodConfig>>,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<()> {
        let method = self.resolve(name, config.into())?;
        self.attach_with(name, method, tensors)
    }

    /// Adds an adapter with copies of the given tensors.
    pub(crate) fn attach_with(
        &mut self,
        name: &str,
        method: Resolved,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<()> {
        let params = self.fit(&method, &Carried::default(), format!("adapter `{name}`"), tensors)?;
        self.attach(name, method, params)
    }

    /// An adapter of a file's tensors, with what else the file has.
    pub(crate) fn read(
        &self,
        name: &str,
        method: Resolved,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        (kept, carried): (Kept, Carried),
        place: &str,
    ) -> Result<Adapted> {
        let params = self.fit(&method, &carried, place.to_owned(), tensors)?;
        self.complete(name, Adapted { kept, carried, ..Adapted::fresh(method, params) })
    }

    /// The adapter must be for what this model's head does: a file that says otherwise is for another model.
    pub(crate) fn check_task(&self, method: &Resolved, place: &str) -> Result<()> {
        let asked = method.file.as_deref().and_then(FileForm::task);
        match asked.zip(self.outline().dims.task).filter(|(task, own)| task != own) {
            None => Ok(()),
            Some((task, own)) => {
                let message = format!("the adapter is for {task}, and this model is for {own}");
                Err(Error::config(place, "task_type", message))
            }
        }
    }

    /// What a configuration comes to in this model, for an adapter of that name.
    pub(crate) fn resolve(&self, name: &str, config: Box<dyn MethodConfig>) -> Result<Resolved> {
        self.check_new(name)?;
        let resolved = config.resolve(self.outline())?;
        self.check_task(&resolved, resolved.method.name())?;
        Ok(resolved)
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
        resolved: &Resolved,
        carried: &Carried,
        place: String,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<Params> {
        // Key of each overlay, and the parameter of the base that it copies.
        let names = self.outline().params.iter();
        let method = &resolved.method;
        let overlay = |p: &String| resolved.overlay(p).or_else(|| carried.overlay(p));
        let overlays: BTreeMap<String, &String> = names.filter_map(|p| Some((overlay(p)?.key, p))).collect();
        let fitted = tensors.into_iter().map(|(name, t)| {
            if !is_float(&t) && (method.frozen(&name) || method.inert(&name)) {
                return Ok((name, t.f_detach_copy()?));
            }
            if !is_float(&t) {
                return Err(Error::Dtype { place: place.clone(), name, found: t.kind() });
            }
            let kind = overlays.get(&name).and_then(|p| self.kind_of_param(p)).unwrap_or(Kind::Float);
            let own = if t.kind() == kind { t.f_detach_copy()? } else { t.f_detach()?.f_to_kind(kind)? };
            Ok((name, own))
        });
        let params = Params::from_tensors(&place, self.base().device(), fitted.collect::<Result<Vec<_>>>()?)?;
        for (name, param) in overlays.iter().filter(|(name, _)| method.frozen(name)) {
            if let (None, Some(t)) = (params.find(name), self.dense_param(param)?) {
                params.insert(name, t.f_detach_copy()?, false)?;
            }
        }
        Ok(params)
    }

    fn attach(&mut self, name: &str, method: Resolved, params: Params) -> Result<()> {
        let mut adapted = self.complete(name, Adapted::fresh(method, params))?;
        adapted.classes = self.classes_for(&adapted);
        self.adapters.insert(name.to_owned(), adapted.into());
        Ok(())
    }

    /// Runs the constructor with the one adapter: that makes or checks its tensors.
    pub(crate) fn complete(&self, name: &str, mut adapted: Adapted) -> Result<Adapted> {
        adapted.train(|_| true)?;
        let run = self.run(vec![adapted.active(name)]);
        self.architecture().build(&Scope::root(&run))?;
        if run.active.iter().any(|a| a.hits.get() == 0) {
            return Err(Error::Idle { method: adapted.resolved.method.name() });
        }
        drop(run);
        let mut unread = adapted.params.unread();
        unread.retain(|name| !adapted.resolved.method.inert(name));
        if !unread.is_empty() {
            return Err(Error::Unread { place: adapted.params.label().to_owned(), names: unread });
        }
        adapted.train(|_| true)?;
        adapted.params.seal();
        Ok(adapted)
    }
}
