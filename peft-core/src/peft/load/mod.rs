//! The door for adapters that another program wrote. [`Peft::add`] takes what a user writes, to the letter; a file is
//! taken as Python PEFT takes it: names that this model lacks beside others that it has, fields and spellings of other
//! versions, weights of the base beside the adapter's. What is passed over is said, and what changes a number is done or
//! refused.

mod base_weights;
mod fields;
pub(crate) mod keys;

use crate::error::{Error, Result};
use crate::io;
use crate::io::adapter::Files;
use crate::methods::PeftConfig;
use crate::peft::load::fields::Fields;
use crate::peft::provenance::OtherBase;
use crate::peft::{Adapted, Peft};
use crate::seam::is_finite;
use crate::warning::Warning;
use std::path::Path;

/// What errors and warnings call the two halves of an adapter.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub config: String,
    pub tensors: String,
}

impl Peft {
    /// Reads an adapter from a directory with `adapter_config.json` and `adapter_model.safetensors`, and the names of its
    /// classes where `id2label.json` has them, and says what of it was passed over because it changes no number here. A
    /// program prints that, on stderr say:
    ///
    /// ```
    /// # use peft_core::Peft;
    /// # use peft_core::methods::LoraConfig;
    /// # use peft_core::models::TinyConfig;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let config = TinyConfig::default();
    /// # let mut peft = Peft::new(config.init(tch::Device::Cpu)?, config)?;
    /// # peft.add("a", LoraConfig::default().targets(["ff.0"]))?;
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path();
    /// # peft.save("a", dir)?;
    /// for warning in peft.load("mine", dir)? {
    ///     eprintln!("warning: {warning}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What would change the numbers, naming file and field or key; nothing is added then. A name that matches nothing in
    /// this model, if no other one of its field does; a field with a value that this crate has no code for; an adapter for
    /// another task; tensors that are missing, superfluous, of a wrong shape, not of floats, or not finite; names of
    /// another number of classes than the model's head has. [`Error::OtherBase`] where `peft_rs.json` says that the adapter
    /// is for another base: [`Peft::load_with`] loads it all the same.
    pub fn load(&mut self, name: &str, dir: impl AsRef<Path>) -> Result<Vec<Warning>> {
        self.load_with(name, dir, OtherBase::Refuse)
    }

    /// As [`Peft::load`], of an adapter for another base as well, if `other` says so.
    ///
    /// # Errors
    /// As [`Peft::load`].
    pub fn load_with(&mut self, name: &str, dir: impl AsRef<Path>, other: OtherBase) -> Result<Vec<Warning>> {
        let dir = dir.as_ref();
        self.check_new(name)?;
        let (files, file) = io::adapter::read(dir)?;
        let path = dir.join(io::adapter::CONFIG);
        let places = Places { config: path.display().to_string(), tensors: file.display().to_string() };
        let mut warnings = match &files.provenance {
            Some(made) => self.check_base(made, &dir.join(io::adapter::PROVENANCE), other)?,
            None => Vec::new(),
        };
        warnings.extend(self.take(name, files, &places).map_err(|e| e.in_file(&path))?);
        Ok(warnings)
    }

    /// From now on, files of a method from outside this crate are read as well, by [`Peft::load`], [`Peft::load_all`] and
    /// [`Peft::copy`]: those whose `peft_type` is the configuration's. What is made of this one (merged, say) reads them,
    /// too.
    ///
    /// # Errors
    /// [`Error::Exists`] for a `peft_type` that is read already.
    pub fn register<C: PeftConfig>(&mut self) -> Result<()> {
        self.readers.add::<C>()
    }

    /// Adds an adapter from its configuration and its tensors, as a file has them.
    pub(crate) fn take(&mut self, name: &str, files: Files, places: &Places) -> Result<Vec<Warning>> {
        let Files { config, tensors, classes, provenance: _ } = files;
        let mut warnings = Vec::new();
        let (method, kept) =
            Fields::new(config, &places.config).method(&self.readers, self.outline(), &mut warnings)?;
        self.check_task(&method, &places.config)?;
        let place = &places.tensors;
        let mut tensors = keys::plain(tensors, self.outline(), place, &mut warnings)?;
        for (key, t) in &tensors {
            if !is_finite(t)? {
                let message = "has values that are NaN or infinite: the training of this adapter went wrong";
                return Err(Error::config(place, key, message));
            }
        }
        keys::check_vocabulary(&tensors, self.outline(), place)?;
        keys::drop_copies(&mut tensors, place)?;
        let mut tensors = method.method.import(place, tensors)?;
        let carried = base_weights::take(self, &method, &mut tensors, place, &mut warnings)?;
        tensors.extend(carried.tensors);
        self.check_classes(&classes, &places.config)?;
        let adapted = self.read(name, method, tensors, (kept, carried.own), place)?;
        self.adapters.insert(name.to_owned(), Adapted { classes, ..adapted }.into());
        Ok(warnings)
    }
}
