//! A store of named tensors: tch's `VarStore` with its sharp edges taken off.
//!
//! `VarStore` makes up a fresh tensor for a name that a file lacks, renames on collision, broadcasts a wrong shape
//! on load and says `Ok`. This file is the wall against that, and the only one that touches it: a store that was
//! filled from a file is *sealed*, a missing name is an error, shapes are compared before anything is copied, and
//! names that nobody read can be listed.

mod phantom;
mod state;

pub(crate) use phantom::phantom;

use crate::error::{Error, Result};
use crate::quant::Nf4;
use crate::seam::init::Init;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor, nn};

/// Named tensors on one device. Freezing is `requires_grad`, toggled here and nowhere else.
#[derive(Debug)]
pub struct Params {
    store: nn::VarStore,
    label: String,
    sealed: bool,
    read: Mutex<BTreeSet<String>>,
    derived: state::State,
    running: state::State,
    packed: Mutex<BTreeMap<String, Nf4>>,
    phantom: bool,
}

impl Params {
    /// An empty store that makes parameters on demand ([`Params::get_or_init`]). `place` is what its errors
    /// call it: "adapter `lora`", a file's path.
    pub fn new(label: impl Into<String>, device: Device) -> Self {
        Self {
            store: nn::VarStore::new(device),
            label: label.into(),
            sealed: false,
            read: Mutex::default(),
            derived: state::State::default(),
            running: state::State::default(),
            packed: Mutex::default(),
            phantom: false,
        }
    }

    /// A sealed store of the given tensors, moved to `device`, frozen. It takes over their memory: nobody else should
    /// go on writing to it.
    pub fn from_tensors(
        label: impl Into<String>,
        device: Device,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<Self> {
        let mut params = Self::new(label, device);
        for (name, tensor) in tensors {
            params.insert(&name, tensor, false)?;
        }
        params.seal();
        Ok(params)
    }

    /// As [`Params::from_tensors`], of copies.
    pub(crate) fn from_copies(
        label: impl Into<String>,
        device: Device,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<Self> {
        let copies = tensors.into_iter().map(|(name, t)| Ok((name, t.f_detach_copy()?)));
        Self::from_tensors(label, device, copies.collect::<Result<Vec<_>>>()?)
    }

    /// From now on a missing name is an error and never a fresh tensor.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// Whether the store is sealed: it was filled from a file, or by an adapter that is complete, and makes no new tensor.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// What errors call this store.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The device of all tensors.
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// The `VarStore` underneath, for code that is written against tch (`nn::Adam::default().build(..)`).
    pub fn var_store(&self) -> &nn::VarStore {
        &self.store
    }

    fn variables(&self) -> MutexGuard<'_, nn::Variables> {
        self.store.variables_.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reads(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All dense tensors by name, in the order of their names.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.variables().named_variables.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect()
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.variables().named_variables.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        let found = self.variables().named_variables.get(name).map(Tensor::shallow_clone);
        if found.is_some() {
            self.reads().insert(name.to_owned());
        }
        found
    }

    /// The tensor of that name and shape.
    ///
    /// # Errors
    /// [`Error::Missing`] with the closest names there are, [`Error::Shape`] with both shapes.
    pub fn get(&self, name: &str, dims: &[i64]) -> Result<Tensor> {
        self.conjure(name, dims)?;
        let Some(tensor) = self.find(name) else {
            if self.packs().contains_key(name) {
                let message = "is in 4 bits; that is for the weights of linear layers alone";
                return Err(Error::config(&self.label, name, message));
            }
            let (place, name, expected) = (self.label.clone(), name.to_owned(), dims.to_vec());
            return Err(Error::Missing { hint: self.hint(&name), place, name, expected });
        };
        self.check(name, dims, &tensor)?;
        Ok(tensor)
    }

    /// The tensor of that name and shape; a store that is not sealed makes a trainable one with `init`.
    pub fn get_or_init(&self, name: &str, dims: &[i64], init: Init) -> Result<Tensor> {
        self.get_or_else(name, dims, || init.tensor(dims, self.device()))
    }

    /// As [`Params::get_or_init`], with the fresh tensor computed by `make`.
    pub fn get_or_else(
        &self,
        name: &str,
        dims: &[i64],
        make: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        if !self.sealed && !self.phantom && self.find(name).is_none() {
            let fresh = make().map_err(|e| e.at(name))?;
            self.check(name, dims, &fresh)?;
            self.insert(name, fresh, true)?;
        }
        self.get(name, dims)
    }

    /// Adds a tensor under a new name, moved to the store's device.
    pub fn insert(&self, name: &str, tensor: Tensor, trainable: bool) -> Result<()> {
        if name.split('.').any(str::is_empty) {
            return Err(Error::Input(format!("{}: `{name}` is not the name of a tensor", self.label)));
        }
        let tensor = tensor.f_detach()?.f_to(self.device())?;
        if self.variables().named_variables.contains_key(name) {
            return Err(Error::Exists { place: self.label.clone(), name: name.to_owned() });
        }
        let (dir, leaf) = name.rsplit_once('.').unwrap_or(("", name));
        let path = dir
            .split('.')
            .filter(|part| !part.is_empty())
            .fold(self.store.root(), |path, part| path.sub(part));
        // Every float goes on tch's list of variables, frozen ones too, as `VarStore::freeze` leaves it: what decides
        // is `requires_grad`, and tch's optimizers pass over tensors without a gradient.
        let tensor = path.add(leaf, tensor.shallow_clone(), is_float(&tensor));
        if is_float(&tensor) {
            let _ = tensor.f_set_requires_grad(trainable)?;
        }
        Ok(())
    }

    /// Overwrites the values of an existing tensor. Shape and name must fit; the tensor's handles stay valid.
    pub fn assign(&self, name: &str, values: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.get(name, &values.size())?.f_copy_(values)?;
        Ok(())
    }

    /// Makes exactly the tensors trainable whose name `wanted` accepts; returns how many there are.
    pub fn set_trainable(&self, wanted: impl Fn(&str) -> bool) -> Result<usize> {
        let mut count = 0usize;
        for (name, tensor) in self.tensors() {
            let on = is_float(&tensor) && wanted(&name);
            if is_float(&tensor) {
                let _ = tensor.f_set_requires_grad(on)?;
            }
            count = count.saturating_add(usize::from(on));
        }
        Ok(count)
    }

    /// Makes no tensor trainable.
    pub fn freeze(&self) -> Result<()> {
        self.set_trainable(|_| false).map(drop)
    }

    /// The trainable tensors, in the order of their names.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        self.tensors().into_iter().filter(|(_, t)| t.requires_grad()).collect()
    }

    /// Names that nobody asked for since the store was made.
    pub fn unread(&self) -> Vec<String> {
        let read = self.reads();
        self.numels().into_keys().filter(|n| !read.contains(n)).collect()
    }

    /// A frozen copy in another dtype; integer tensors stay what they are, and so do the codes of 4-bit weights.
    pub fn to_kind(&self, kind: Kind) -> Result<Params> {
        let _guard = tch::no_grad_guard();
        let tensors = self.tensors().into_iter().map(|(name, t)| {
            let t = if is_float(&t) { t.f_to_kind(kind)? } else { t };
            Ok((name, t))
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let copy = Params::from_copies(self.label.clone(), self.device(), tensors)?;
        self.nf4s().iter().try_for_each(|(name, w)| copy.insert_nf4(name, &w.to_kind(kind)))?;
        Ok(copy)
    }

    fn check(&self, name: &str, dims: &[i64], tensor: &Tensor) -> Result<()> {
        let found = tensor.size();
        if found == dims {
            return Ok(());
        }
        Err(Error::Shape {
            place: self.label.clone(),
            name: name.to_owned(),
            expected: dims.to_vec(),
            found,
            hint: String::new(),
        })
    }

    fn hint(&self, name: &str) -> String {
        let names: Vec<String> = self.tensors().into_keys().collect();
        match names.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name))) {
            None => "; it holds no tensors".into(),
            Some(close) => format!("; the closest name it has is `{close}`"),
        }
    }
}

/// Whether it can have a gradient.
pub(crate) fn is_float(t: &Tensor) -> bool {
    matches!(t.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}

/// Number of values.
pub(crate) fn numel(t: &Tensor) -> i64 {
    i64::try_from(t.numel()).unwrap_or(i64::MAX)
}

/// Whether no value is NaN or infinite. What are no floats are numbers.
pub(crate) fn is_finite(t: &Tensor) -> Result<bool> {
    if !is_float(t) || t.numel() == 0 {
        return Ok(true);
    }
    // The least and the greatest are NaN where any is; nothing as large as the tensor is made.
    let (least, greatest) = t.f_aminmax(None, false)?;
    Ok(least.f_double_value(&[])?.is_finite() && greatest.f_double_value(&[])?.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(dims: &[i64]) -> Tensor {
        Tensor::ones(dims, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn a_sealed_store_never_makes_up_tensors() {
        let p =
            Params::from_tensors("f.safetensors", Device::Cpu, [("a.weight".into(), ones(&[2, 4]))]).unwrap();
        let e = p.get_or_init("a.wieght", &[2, 4], Init::Zeros).unwrap_err().to_string();
        assert!(e.contains("f.safetensors") && e.contains("`a.wieght`") && e.contains("`a.weight`"), "{e}");
        assert_eq!(p.len(), 1);
    }

    #[test]
    fn shapes_are_compared_and_never_broadcast() {
        let p = Params::new("store", Device::Cpu);
        p.insert("a", ones(&[2, 4]), true).unwrap();
        let e = p.assign("a", &ones(&[4])).unwrap_err().to_string();
        assert!(e.contains("[2, 4]") && e.contains("[4]"), "{e}");
        assert!(matches!(p.insert("a", ones(&[1]), true), Err(Error::Exists { .. })));
    }

    #[test]
    fn freezing_is_requires_grad() {
        let p = Params::new("store", Device::Cpu);
        for name in ["a.A", "a.B"] {
            p.insert(name, ones(&[2]), true).unwrap();
        }
        assert_eq!(p.trainable().len(), 2);
        assert_eq!(p.set_trainable(|n| n.ends_with('B')).unwrap(), 1);
        assert_eq!(p.trainable()[0].0, "a.B");
        let frozen = p.var_store().trainable_variables().iter().filter(|t| !t.requires_grad()).count();
        assert_eq!((frozen, p.var_store().len()), (1, 2));
    }
}
