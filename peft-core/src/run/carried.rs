//! Weights of the base that an adapter's file has beside its own: those of a vocabulary that was resized, which PEFT adds
//! by itself, and those of a whole model that somebody saved. PEFT writes them over the base's at once; here they are the
//! adapter's, and count in the views that it is active in.

use crate::error::Result;
use crate::seam::{Counting, Overlay, Params, Twin, numel};
use std::collections::BTreeMap;
use tch::Tensor;

/// Frozen copies of parameters that stand for the base's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carried {
    /// By the name of the parameter.
    pub copies: BTreeMap<String, Overlay>,
    /// What the file has a second time, under the name of a tied head.
    pub twins: Vec<Twin>,
}

impl Carried {
    /// The copy of a parameter, if there is one.
    pub fn overlay(&self, param: &str) -> Option<Overlay> {
        self.copies.get(param).cloned()
    }

    /// What a report counts beyond them, below 0: a copy under a tied name is the base's tensor once more.
    pub fn uncounted(&self, params: &Params) -> i64 {
        let added = self.copies.values().filter(|copy| copy.counting == Counting::Adds);
        let sizes = added.filter_map(|copy| Some(numel(&params.find(&copy.key)?)));
        sizes.fold(0, i64::saturating_sub)
    }

    /// Whether a tensor of the adapter is one of these.
    pub fn has(&self, key: &str) -> bool {
        self.copies.values().any(|copy| copy.key == key)
    }

    /// Adds them to what the method writes.
    pub fn export(
        &self,
        all: &BTreeMap<String, Tensor>,
        tensors: &mut BTreeMap<String, Tensor>,
    ) -> Result<()> {
        for key in self.copies.values().map(|copy| &copy.key) {
            tensors.extend(all.get(key).map(|t| (key.clone(), t.shallow_clone())));
        }
        self.twins.iter().try_for_each(|twin| twin.export(tensors))
    }
}
