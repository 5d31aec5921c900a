//! Names of the classes of a classifier: the model's, and those that an adapter was trained with.

use crate::error::{Error, Result};
use crate::io::adapter::CLASSES;
use crate::peft::{Adapted, Peft};
use std::path::Path;

impl Peft {
    /// Names of the classes in the order of the logits of [`Peft::view`]: those of the last of the adapters that trains the
    /// head and has names, or else the model's; empty where there are none. They are stored with an adapter, and written to
    /// `config.json` of a merged model.
    ///
    /// # Errors
    /// A name that is unknown.
    pub fn classes(&self, active: &[&str]) -> Result<&[String]> {
        let adapters = active.iter().map(|name| self.adapter(name)).collect::<Result<Vec<&Adapted>>>()?;
        let own = adapters.iter().rev().map(|a| a.classes.as_slice()).find(|classes| !classes.is_empty());
        Ok(own.unwrap_or(&self.outline().dims.classes))
    }

    /// The same model, without adapters, with these names for the classes of its head.
    ///
    /// # Errors
    /// A model whose classes have no names, and another number of them.
    pub fn named(self, classes: &[String]) -> Result<Self> {
        let Some(architecture) = self.architecture().named(classes) else {
            let message =
                format!("{} names for the classes of a `{}`", classes.len(), self.outline().dims.model_type);
            return Err(Error::Input(format!("{message}, which has another number of them or none")));
        };
        Ok(Self { readers: self.readers, ..Self::of(self.base, architecture.into())? })
    }

    /// Names in an adapter's directory are as many as the model has classes; `place` is its configuration.
    pub(crate) fn check_classes(&self, classes: &[String], place: &str) -> Result<()> {
        let heads = self.outline().sites.iter().filter(|site| self.in_head(&site.name));
        let Some(&number) = heads.last().and_then(|site| site.shape.first()) else { return Ok(()) };
        if classes.is_empty() || i64::try_from(classes.len()) == Ok(number) {
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

    /// The names that a fresh adapter takes over from the model, if it trains the head.
    pub(crate) fn classes_for(&self, adapted: &Adapted) -> Vec<String> {
        let mut params = self.outline().params.iter();
        let trained = params.any(|p| self.in_head(p) && adapted.resolved.overlay(p).is_some());
        if trained { self.outline().dims.classes.clone() } else { Vec::new() }
    }
}
