//! Weights of the base that an adapter's file has beside its own: those of a vocabulary that was resized, which PEFT adds
//! by itself, and those of a whole model that somebody saved. PEFT writes them over the base's at once; here they are the
//! adapter's, and count in the views that it is active in.

use super::keys::param_of;
use crate::methods::{Counting, Method, Overlay, Twin};
use crate::model::Model;
use crate::{Peft, Result, Warning};
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

/// Frozen copies of parameters that stand for the base's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carried {
    /// Stored name by the name of the parameter.
    keys: BTreeMap<String, String>,
    /// What the file has a second time, under the name of a tied head.
    twins: Vec<Twin>,
}

/// What [`Carried::take`] takes out of a file.
pub(super) struct Taken {
    pub own: Carried,
    pub tensors: Vec<(String, Tensor)>,
}

impl Carried {
    /// Takes the weights out of a file's tensors that are the base's, and that the method has no copies of. Those that
    /// are as the base has them are dropped, but for the embedding and the head: another base has other ones.
    pub(super) fn take<M: Model>(
        peft: &Peft<M>,
        method: &dyn Method,
        tensors: &mut BTreeMap<String, Tensor>,
        place: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<Taken> {
        let outline = peft.outline();
        let copies: BTreeSet<String> =
            outline.params.iter().filter_map(|p| Some(method.overlay(p)?.key)).collect();
        let beside: Vec<(String, String)> = tensors
            .keys()
            .filter(|key| !copies.contains(*key))
            .filter_map(|key| Some((key.clone(), param_of(key, outline)?)))
            .collect();
        let ends = [outline.dims.word_embedding.clone(), format!("{}.weight", outline.dims.head)];
        let (mut own, mut taken) = (Carried::default(), Vec::new());
        let (mut same, mut other) = (Vec::new(), Vec::new());
        for (key, param) in &beside {
            let stored = outline.stored_name(param);
            if let Some((first, _)) = beside.iter().find(|(_, p)| p == stored && p != param) {
                let twin = Twin::new(first, key);
                twin.import(place, tensors)?;
                own.twins.push(twin);
            }
        }
        for (key, param) in &beside {
            let Some(tensor) = tensors.remove(key) else { continue };
            let stored = outline.stored_name(param);
            let base = peft.dense_param(stored)?;
            let equal = match &base {
                Some(base) if base.size() == tensor.size() => {
                    base.f_equal(&tensor.f_to_kind(base.kind())?.f_to(base.device())?)?
                }
                _ => false,
            };
            if equal && !ends.contains(param) {
                same.push(key.clone());
                continue;
            }
            if !equal {
                other.push(key.clone());
            }
            own.keys.insert(stored.to_owned(), key.clone());
            taken.push((key.clone(), tensor));
        }
        for (keys, what) in [
            (same, "is the base's own weight, as the base has it, and is not kept with the adapter"),
            (other, "is another value of the base's own weight: it is in force where the adapter is active"),
        ] {
            let Some(first) = keys.first() else { continue };
            let more = match keys.len() {
                1 => String::new(),
                n => format!("; so are {} more", n.saturating_sub(1)),
            };
            warnings.push(Warning::new(place, first, format!("{what}{more}")));
        }
        Ok(Taken { own, tensors: taken })
    }

    /// The copy of a parameter, if there is one.
    pub fn overlay(&self, param: &str) -> Option<Overlay> {
        let key = self.keys.get(param)?.clone();
        Some(Overlay { key, counting: Counting::Replaces, beside: true })
    }

    /// Whether a tensor of the adapter is one of these.
    pub fn has(&self, key: &str) -> bool {
        self.keys.values().any(|k| k == key)
    }

    /// Adds them to what the method writes.
    pub fn export(
        &self,
        all: &BTreeMap<String, Tensor>,
        tensors: &mut BTreeMap<String, Tensor>,
    ) -> Result<()> {
        for key in self.keys.values() {
            tensors.extend(all.get(key).map(|t| (key.clone(), t.shallow_clone())));
        }
        self.twins.iter().try_for_each(|twin| twin.export(tensors))
    }
}
