//! A base in 4 bits, from a dense one and back.

use super::{Nf4, Nf4Config, weight_name};
use crate::model::Model;
use crate::{Error, Params, Peft, Result};
use tch::{Kind, Tensor};

impl<M: Model> Peft<M> {
    /// The same model with its linear layers in 4 bits, without adapters.
    ///
    /// # Errors
    /// A model that has weights in 4 bits already; a weight that is not finite; a wrong configuration.
    pub fn quantised(&self, config: &Nf4Config) -> Result<Self> {
        if let Some(name) = self.base().packed().into_keys().next() {
            return Err(Error::Exists { place: format!("{}: 4-bit weights", self.base().place()), name });
        }
        let mut dense = self.base().tensors();
        let mut packed = Vec::new();
        for site in config.linears(self.outline(), |name| dense.contains_key(name))? {
            let name = weight_name(site);
            if let Some(w) = dense.remove(&name) {
                let w = if site.transposed { w.f_tr()? } else { w };
                packed.push((Nf4::quantise(&name, &w, config)?, name));
            }
        }
        let params = Params::from_copies(self.base().place(), self.base().device(), dense)?;
        packed.iter().try_for_each(|(w, name)| params.insert_packed(name, w))?;
        Self::new(params, self.config().clone())
    }

    /// A parameter of the base as a file has it, dense; that of a tied head is the other one's.
    pub(crate) fn dense_param(&self, name: &str) -> Result<Option<Tensor>> {
        let name = self.outline().stored_name(name);
        let Some(packed) = self.base().find_packed(name) else { return Ok(self.base().find(name)) };
        let transposed = self.outline().sites.iter().any(|s| s.transposed && weight_name(s) == name);
        let w = packed.dequantise()?;
        Ok(Some(if transposed { w.f_tr()?.f_contiguous()? } else { w }))
    }

    /// Dtype of [`Peft::dense_param`].
    pub(crate) fn kind_of_param(&self, name: &str) -> Option<Kind> {
        self.base().kind(self.outline().stored_name(name))
    }
}
