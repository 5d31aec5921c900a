//! How an adapter comes to a model: fresh, or from tensors. How it comes from a directory is in [`load`](crate::peft::load).

use crate::error::{Error, Result};
use crate::peft::kept::Kept;
use crate::peft::{Adapted, Peft};
use crate::run::carried::Carried;
use crate::run::scope::Scope;
use crate::seam::method::{FileForm, Method};
use crate::seam::params::{Params, is_float};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

impl Peft {
    /// Adds a fresh adapter; its parameters are drawn now, in the constructor's order.
    ///
    /// # Errors
    /// A name that is taken, a configuration that is wrong, a target that matches nothing.
    pub fn add(&mut self, name: &str, method: impl Into<Box<dyn Method>>) -> Result<()> {
        let method = self.prepare(name, method.into())?;
        self.check_task(method.as_ref(), method.name())?;
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
        method: impl Into<Box<dyn Method>>,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<()> {
        let method = self.prepare(name, method.into())?;
        self.check_task(method.as_ref(), method.name())?;
        let params = self.fit(method.as_ref(), &Carried::default(), format!("adapter `{name}`"), tensors)?;
        self.attach(name, method, params)
    }

    /// Adds an adapter with a file's tensors, and what else the file has.
    pub(crate) fn attach_read(
        &mut self,
        name: &str,
        method: Box<dyn Method>,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        (kept, carried): (Kept, Carried),
        place: &str,
    ) -> Result<()> {
        let params = self.fit(method.as_ref(), &carried, place.to_owned(), tensors)?;
        let adapted = self.complete(name, Adapted { method, params, kept, carried })?;
        self.adapters.insert(name.to_owned(), adapted.into());
        Ok(())
    }

    /// The adapter must be for what this model's head does: a file that says otherwise is for another model.
    pub(crate) fn check_task(&self, method: &dyn Method, place: &str) -> Result<()> {
        let asked = method.file().and_then(FileForm::task);
        match asked.zip(self.outline().dims.task).filter(|(task, own)| task != own) {
            None => Ok(()),
            Some((task, own)) => {
                let message = format!("the adapter is for {task}, and this model is for {own}");
                Err(Error::config(place, "task_type", message))
            }
        }
    }

    pub(crate) fn prepare(&self, name: &str, mut method: Box<dyn Method>) -> Result<Box<dyn Method>> {
        self.check_new(name)?;
        method.prepare(self.outline())?;
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
        carried: &Carried,
        place: String,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<Params> {
        // Key of each overlay, and the parameter of the base that it copies.
        let names = self.outline().params.iter();
        let overlay = |p: &String| method.overlay(p).or_else(|| carried.overlay(p));
        let overlays: BTreeMap<String, &String> = names.filter_map(|p| Some((overlay(p)?.key, p))).collect();
        let fitted = tensors.into_iter().map(|(name, t)| {
            if !is_float(&t) && method.frozen(&name) {
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

    fn attach(&mut self, name: &str, method: Box<dyn Method>, params: Params) -> Result<()> {
        let adapted = self.complete(name, Adapted::fresh(method, params))?;
        self.adapters.insert(name.to_owned(), adapted.into());
        Ok(())
    }

    /// Runs the constructor with the one adapter: that makes or checks its tensors.
    pub(crate) fn complete(&self, name: &str, mut adapted: Adapted) -> Result<Adapted> {
        adapted.train(|_| true)?;
        let run = self.run(vec![adapted.active(name)]);
        self.architecture().build(&Scope::root(&run))?;
        if run.active.iter().any(|a| a.hits.get() == 0) {
            return Err(Error::Idle { method: adapted.method.name() });
        }
        drop(run);
        let unread = adapted.params.unread();
        if !unread.is_empty() {
            return Err(Error::Unread { place: adapted.params.place().to_owned(), names: unread });
        }
        adapted.train(|_| true)?;
        adapted.params.seal();
        Ok(adapted)
    }
}
