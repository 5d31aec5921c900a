//! What a store holds beside its dense tensors: a base's weights in 4 bits, and an adapter's state.

use crate::error::{Error, Result};
use crate::quant::Nf4;
use crate::seam::params::phantom::phantom;
use crate::seam::params::{Params, numel};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// Weights in 4 bits. A name is that of a dense tensor or of one of these.
impl Params {
    /// All weights in 4 bits by name, in the order of their names.
    pub fn nf4s(&self) -> BTreeMap<String, Nf4> {
        self.packs().iter().map(|(n, w)| (n.clone(), w.shallow_clone())).collect()
    }

    /// The weight in 4 bits of that name, if there is one.
    pub fn find_nf4(&self, name: &str) -> Option<Nf4> {
        let found = self.packs().get(name).map(Nf4::shallow_clone);
        if found.is_some() {
            self.reads().insert(name.to_owned());
        }
        found
    }

    /// Adds a weight in 4 bits under a new name, moved to the store's device.
    pub fn insert_nf4(&self, name: &str, weight: &Nf4) -> Result<()> {
        let weight = weight.to_device(self.device())?;
        if self.kind(name).is_some() {
            return Err(Error::Exists { place: self.label.clone(), name: name.to_owned() });
        }
        self.packs().insert(name.to_owned(), weight);
        Ok(())
    }

    /// Name and number of values of everything there is, dense or in 4 bits.
    pub fn numels(&self) -> BTreeMap<String, i64> {
        let mut all: BTreeMap<String, i64> =
            self.variables().named_variables.iter().map(|(n, t)| (n.clone(), numel(t))).collect();
        all.extend(self.packs().iter().map(|(n, w)| (n.clone(), w.numel())));
        all
    }

    /// Dtype of the (dense) parameter of that name, if there is one.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        let packed = self.packs().get(name).map(Nf4::kind);
        packed.or_else(|| self.variables().named_variables.get(name).map(Tensor::kind))
    }

    pub(super) fn packs(&self) -> MutexGuard<'_, BTreeMap<String, Nf4>> {
        self.packed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State: tensors that belong to an adapter and not to its file. What is *derived* can be computed again from the base and
/// the configuration; what is *running* is known from training alone, and has to be saved for it to go on.
impl Params {
    /// A tensor that follows from the base and the configuration (a norm, a factorisation, an index). Made on the first call,
    /// sealed or not; never trained, counted or written.
    pub fn derived(&self, name: &str, make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        if let Some(tensor) = Self::find_in(&self.derived, name) {
            return Ok(tensor);
        }
        let tensor = make()?.f_detach()?.f_to(self.device())?;
        self.set_derived(name, tensor.shallow_clone());
        Ok(tensor)
    }

    /// Puts a tensor of [`Params::derived`] there that came with another one.
    pub fn set_derived(&self, name: &str, tensor: Tensor) {
        states(&self.derived).insert(name.to_owned(), tensor);
    }

    /// A tensor that training has made (an average, a mask), if there is one. It is no part of the adapter's file, and is
    /// saved with a run, so that a run that is resumed goes on with it.
    pub fn running(&self, name: &str) -> Option<Tensor> {
        Self::find_in(&self.running, name)
    }

    /// Replaces a tensor of [`Params::running`].
    pub fn set_running(&self, name: &str, tensor: Tensor) {
        states(&self.running).insert(name.to_owned(), tensor);
    }

    /// Forgets a tensor of [`Params::running`].
    pub fn remove_running(&self, name: &str) {
        states(&self.running).remove(name);
    }

    /// All tensors of [`Params::running`] by name.
    pub fn all_running(&self) -> BTreeMap<String, Tensor> {
        states(&self.running).iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect()
    }

    /// Bytes that all state holds, derived and running.
    pub fn state_bytes(&self) -> i64 {
        let bytes = |t: &Tensor| t.numel().saturating_mul(t.kind().elt_size_in_bytes());
        let all = |state| states(state).values().map(bytes).fold(0, usize::saturating_add);
        i64::try_from(all(&self.derived).saturating_add(all(&self.running))).unwrap_or(i64::MAX)
    }

    fn find_in(state: &State, name: &str) -> Option<Tensor> {
        states(state).get(name).map(Tensor::shallow_clone)
    }
}

/// Tensors that are made while the store is shared.
pub(super) type State = Mutex<BTreeMap<String, Tensor>>;

fn states(state: &State) -> MutexGuard<'_, BTreeMap<String, Tensor>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores without numbers: every tensor is one zero that is seen as the whole shape. A constructor that runs over such
/// a base, with such an adapter, meets the names and shapes of the real ones, at no cost whatever their size.
impl Params {
    /// An empty store in which every tensor is there, once it is asked for. Nothing is drawn, and nothing computed.
    pub(crate) fn phantom(label: impl Into<String>) -> Self {
        Self { phantom: true, ..Self::new(label, Device::Cpu) }
    }

    /// Makes the tensor that a phantom store is asked for.
    pub(super) fn conjure(&self, name: &str, dims: &[i64]) -> Result<()> {
        if self.phantom && !self.sealed && self.find(name).is_none() {
            self.insert(name, phantom(dims, Kind::Float).map_err(|e| e.at(name))?, false)?;
        }
        Ok(())
    }

    /// As [`Params::derived`], of a shape that is known before: a phantom store has it without computing it.
    pub(crate) fn derived_of(
        &self,
        name: &str,
        dims: &[i64],
        make: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.derived(name, || if self.phantom { phantom(dims, Kind::Float) } else { make() })
    }
}
