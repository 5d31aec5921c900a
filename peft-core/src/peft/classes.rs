//! Names of the classes of a classifier: the model's, and those that an adapter was trained with.

use crate::error::{Error, Result};
use crate::io::adapter::CLASSES;
use crate::peft::{Adapted, Peft};
use crate::seam::PREFIX;
use std::path::Path;
use std::sync::Arc;

impl Peft {
    /// Names of the classes in the order of the logits of [`Peft::view`]: those of the last of the adapters that trains the
    /// head, if it has names, or else the model's; empty where there are none. They are stored with an adapter, and written
    /// to `config.json` of a merged model.
    ///
    /// # Errors
    /// A name that is unknown.
    pub fn classes(&self, active: &[&str]) -> Result<&[String]> {
        let adapters = active.iter().map(|name| self.adapter(name)).collect::<Result<Vec<&Adapted>>>()?;
        let last = adapters.into_iter().rev().find(|a| !a.classes.is_empty() || self.trains_head(a));
        let own = last.map(|a| a.classes.as_slice()).filter(|classes| !classes.is_empty());
        Ok(own.unwrap_or(&self.outline().dims.classes))
    }

    /// The same model, without adapters, with these names for the classes of its head.
    ///
    /// # Errors
    /// A model whose classes have no names, and another number of them.
    pub fn named(self, classes: &[String]) -> Result<Self> {
        let Some(architecture) = self.architecture().named(classes) else {
            let dims = &self.outline().dims;
            let there = match self.number_of_classes() {
                _ if dims.causal() => "which is for next tokens and has no classes".to_owned(),
                Some(number) if !counts(classes, number) => format!("which has {number}"),
                _ => "whose classes can have no names (`Architecture::named`)".to_owned(),
            };
            let message = format!("{} names for the classes of {}, {there}", classes.len(), dims.model());
            return Err(Error::Input(message));
        };
        let Self { base, readers, numerics, .. } = self;
        Ok(Self { readers, numerics, ..Self::of(base, architecture.into())? })
    }

    /// How many classes the model's head has, where the model says which layer that is.
    pub fn number_of_classes(&self) -> Option<i64> {
        let heads = self.outline().sites.iter().filter(|site| self.in_head(&site.name));
        heads.last()?.shape.first().copied()
    }

    /// Names in an adapter's directory are as many as the model has classes; `place` is its configuration.
    pub(crate) fn check_classes(&self, classes: &[String], place: &str) -> Result<()> {
        let Some(number) = self.number_of_classes() else { return Ok(()) };
        if classes.is_empty() || counts(classes, number) {
            return Ok(());
        }
        let message = format!("has {} names, and the model's head has {number} classes", classes.len());
        Err(Error::format(Path::new(place).with_file_name(CLASSES), message))
    }

    /// Whether a name is that of the output layer, or of something in it.
    fn in_head(&self, name: &str) -> bool {
        let rest = self.outline().dims.head.as_deref().and_then(|head| name.strip_prefix(head));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// Whether an adapter has a copy of the head, or tensors of its own there.
    fn trains_head(&self, adapted: &Adapted) -> bool {
        let copied = |p: &String| self.in_head(p) && adapted.resolved.overlay(p).is_some();
        let beside = |key: &String| key.strip_prefix(PREFIX).is_some_and(|name| self.in_head(name));
        self.outline().params.iter().any(copied) || adapted.params.numels().keys().any(beside)
    }

    /// The names that a fresh adapter takes over from the model, if it trains the head.
    pub(crate) fn classes_for(&self, adapted: &Adapted) -> Vec<String> {
        if self.trains_head(adapted) { self.outline().dims.classes.clone() } else { Vec::new() }
    }

    /// Has the adapter `new`, which was made of `sources`, take over the names of their classes, if it has their head.
    pub(crate) fn take_classes(&mut self, new: &str, sources: &[&str]) -> Result<()> {
        if self.trains_head(self.adapter(new)?) {
            let classes = self.classes(sources)?.to_vec();
            if let Some(adapted) = self.adapters.get_mut(new).and_then(Arc::get_mut) {
                adapted.classes = classes;
            }
        }
        Ok(())
    }
}

fn counts(classes: &[String], number: i64) -> bool {
    i64::try_from(classes.len()) == Ok(number)
}
