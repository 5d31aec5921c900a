//! The adapters of a model as users handle them: names, folders of several adapters, a table of what there is.

use crate::error::{Error, Result};
use crate::io;
use crate::io::IfExists;
use crate::io::adapter::Files;
use crate::peft::Peft;
use crate::peft::load::Places;
use crate::peft::provenance::{OtherBase, Provenance};
use crate::peft::report::commas;
use crate::run::Scope;
use crate::seam::numel;
use crate::warning::Warning;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use tch::Kind;

/// The name of an adapter that lies in a folder itself and not in a sub-folder of it; PEFT's.
pub const DEFAULT: &str = "default";

/// A model and its adapters, as PEFT's `get_model_status` has them. Which of them are active or merged is not part of
/// it: views are, and a model has any number of them at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `model_type` of the Hub's configuration; empty where the model states none.
    pub model_type: String,
    /// Parameters of the base, a tied one once.
    pub base_params: i64,
    /// In the order of their names.
    pub adapters: Vec<AdapterStatus>,
}

/// One adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterStatus {
    /// The name by which views have it.
    pub name: String,
    /// The method's name.
    pub method: String,
    /// `peft_type` of its file; `None` for a method that has no file form.
    pub peft_type: Option<String>,
    /// Places in the model that it adapts.
    pub places: usize,
    /// Parameters, trainable or not.
    pub params: i64,
    /// Parameters that are trained, less what an optimizer froze.
    pub trainable: i64,
    /// Dtypes of its tensors.
    pub dtypes: Vec<String>,
}

/// The adapters of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Their names, in order.
    pub names: Vec<String>,
    /// What of their files was passed over.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for Status {
    /// A table, one row an adapter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["adapter", "method", "peft_type", "places", "parameters", "trainable", "dtype"]);
        for a in &self.adapters {
            let kind = a.peft_type.clone().unwrap_or_else(|| "-".into());
            let numbers = [a.places.to_string(), commas(a.params), commas(a.trainable)];
            let texts = [a.name.clone(), a.method.clone(), kind];
            table.add_row(texts.into_iter().chain(numbers).chain([a.dtypes.join(", ")]));
        }
        for column in table.column_iter_mut().skip(3).take(3) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        let name = if self.model_type.is_empty() { "a model" } else { &self.model_type };
        write!(f, "{name}, {} parameters\n{table}", commas(self.base_params))
    }
}

impl Peft {
    /// Names of the adapters.
    pub fn names(&self) -> Vec<&str> {
        self.adapters.keys().map(String::as_str).collect()
    }

    /// Writes an adapter's two files into `dir`, which has no adapter yet. PEFT reads them, if it has the method. Names of
    /// classes that it was trained with are in a third, `id2label.json`, which PEFT passes over.
    ///
    /// # Errors
    /// [`Error::Occupied`] for a directory with an adapter or a model: [`Peft::save_with`] replaces them. A method that
    /// has no file form, a name that is unknown, a place that cannot be written to.
    pub fn save(&self, name: &str, dir: impl AsRef<Path>) -> Result<()> {
        self.save_with(name, dir, IfExists::Refuse)
    }

    /// As [`Peft::save`], over an adapter that is there if `if_exists` says so, as training that saves again and again
    /// does. The files change as one: a reader, and whoever comes after a kill, has all of the old or all of the new.
    ///
    /// # Errors
    /// As [`Peft::save`].
    pub fn save_with(&self, name: &str, dir: impl AsRef<Path>, if_exists: IfExists) -> Result<()> {
        io::adapter::write(dir, &self.files(name)?, if_exists)
    }

    /// As [`Peft::save_with`], and beside PEFT's files, which stay as they are, `peft_rs.json`: what base the adapter is for.
    /// [`Peft::load`] asks that of a base.
    ///
    /// # Errors
    /// As [`Peft::save`].
    pub fn save_with_provenance(
        &self,
        name: &str,
        dir: impl AsRef<Path>,
        if_exists: IfExists,
        made: &Provenance,
    ) -> Result<()> {
        let files = Files { provenance: Some(made.json()?), ..self.files(name)? };
        io::adapter::write(dir, &files, if_exists)
    }

    /// What is saved of an adapter.
    fn files(&self, name: &str) -> Result<Files> {
        let a = self.adapter(name)?;
        a.files()?.ok_or_else(|| {
            let message = "this method has no file form";
            Error::config(a.resolved.method.name(), "adapter_config.json", message)
        })
    }

    /// Removes an adapter.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        self.adapter(name)?;
        self.adapters.remove(name);
        Ok(())
    }

    /// Gives an adapter another name.
    ///
    /// # Errors
    /// A name that is unknown, and a new one that is taken.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<()> {
        self.adapter(name)?;
        self.check_new(new)?;
        if let Some(adapted) = self.adapters.remove(name) {
            self.adapters.insert(new.to_owned(), adapted);
        }
        Ok(())
    }

    /// The model and its adapters.
    ///
    /// ```
    /// # use peft_core::Peft;
    /// # use peft_core::methods::LoraConfig;
    /// # use peft_core::models::TinyConfig;
    /// # fn main() -> peft_core::Result<()> {
    /// # let config = TinyConfig::default();
    /// # let mut peft = Peft::new(config.init(tch::Device::Cpu)?, config)?;
    /// peft.add("mine", LoraConfig::new(8).targets(["ff.0"]))?;
    /// println!("{}", peft.status()?); // a table
    /// assert_eq!(peft.status()?.adapters[0].places, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Result<Status> {
        let adapters = self.names().into_iter().map(|name| {
            let params = self.params(name)?;
            let run = self.run(self.active(&[name])?);
            self.architecture().build(&Scope::root(&run))?;
            let dtype =
                |kind: Kind| io::dtypes::dtype(kind).map_or_else(|| format!("{kind:?}"), str::to_owned);
            let dtypes: BTreeSet<String> = params.tensors().values().map(|t| dtype(t.kind())).collect();
            Ok(AdapterStatus {
                name: name.to_owned(),
                method: self.method(name)?.name().to_owned(),
                peft_type: self.file(name)?.get("peft_type").and_then(|t| t.as_str()).map(str::to_owned),
                places: run.active.first().map_or(0, |a| a.hits.get()),
                params: params.tensors().values().map(numel).sum(),
                trainable: params.trainable().iter().map(|(_, t)| numel(t)).sum(),
                dtypes: dtypes.into_iter().collect(),
            })
        });
        Ok(Status {
            model_type: self.outline().dims.model_type.clone(),
            base_params: self.base().numels().values().sum(),
            adapters: adapters.collect::<Result<_>>()?,
        })
    }

    /// Adds the adapter `new`, a copy of `name` that is trained independently of it.
    ///
    /// # Errors
    /// Names that are unknown or taken; a method that has no file form.
    pub fn copy(&mut self, name: &str, new: &str) -> Result<()> {
        let adapter = self.adapter(name)?;
        let Some(files) = adapter.files()? else {
            let message = "this method has no file form to copy through";
            return Err(Error::config(adapter.resolved.method.name(), "copy", message));
        };
        let place = format!("adapter `{name}`");
        let places = Places { config: place.clone(), tensors: place };
        self.check_new(new)?;
        self.take(new, files, &places).map(drop) // what there is to say was said when it was loaded
    }

    /// Adds every adapter of a folder: the one that lies in it, as `default`, and those in its sub-folders, by the
    /// sub-folders' names. That is how PEFT saves a model with several adapters. Says what was passed over, as
    /// [`Peft::load`] does.
    ///
    /// # Errors
    /// As [`Peft::load`], and for a folder without any adapter; nothing is added then.
    pub fn load_all(&mut self, dir: impl AsRef<Path>) -> Result<Loaded> {
        self.load_all_with(dir, OtherBase::Refuse)
    }

    /// As [`Peft::load_all`], of adapters for another base as well, if `other` says so.
    ///
    /// # Errors
    /// As [`Peft::load_all`].
    pub fn load_all_with(&mut self, dir: impl AsRef<Path>, other: OtherBase) -> Result<Loaded> {
        let dir = dir.as_ref();
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        io::settle(dir, io::adapter::CONFIG)?;
        if dir.join(io::adapter::CONFIG).exists() {
            found.push((DEFAULT.to_owned(), dir.to_owned()));
        }
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| Error::file(dir, e))? {
            folders.push(entry.map_err(|e| Error::file(dir, e))?.path());
        }
        folders.sort();
        folders.iter().try_for_each(|dir| io::settle(dir, io::adapter::CONFIG))?;
        for path in folders.into_iter().filter(|p| p.join(io::adapter::CONFIG).exists()) {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
                return Err(Error::format(&path, "is not a name in UTF-8"));
            };
            found.push((name.to_owned(), path));
        }
        if found.is_empty() {
            let model = match dir.join(io::names::MODEL).exists() {
                true => ": this is a model and no adapter",
                false => "",
            };
            let message = format!("has no {}, nor a sub-folder with one{model}", io::adapter::CONFIG);
            return Err(Error::format(dir, message));
        }
        let mut loaded = Loaded::default();
        for (name, path) in found {
            match self.load_with(&name, &path, other) {
                Ok(warnings) => loaded.warnings.extend(warnings),
                Err(e) => {
                    loaded.names.iter().try_for_each(|name| self.delete(name))?;
                    return Err(e);
                }
            }
            loaded.names.push(name);
        }
        Ok(loaded)
    }

    /// Writes every adapter as [`Peft::load_all`] and PEFT read them: `default` into `dir`, the others into sub-folders
    /// of their names. Where one of them may not be written, none is.
    ///
    /// # Errors
    /// As [`Peft::save`], and for a name that cannot be a folder's.
    pub fn save_all(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.save_all_with(dir, IfExists::Refuse)
    }

    /// As [`Peft::save_all`], over adapters that are there if `if_exists` says so. Each of them is replaced as one, in the
    /// order of their names.
    ///
    /// # Errors
    /// As [`Peft::save_all`].
    pub fn save_all_with(&self, dir: impl AsRef<Path>, if_exists: IfExists) -> Result<()> {
        let places = self.names().into_iter().map(|name| {
            let parts: Vec<_> = Path::new(name).components().collect();
            match parts.as_slice() {
                [Component::Normal(_)] if name == DEFAULT => Ok((name, dir.as_ref().to_owned())),
                [Component::Normal(_)] => Ok((name, dir.as_ref().join(name))),
                _ => Err(Error::Input(format!("adapter `{name}`: its name is none for a folder"))),
            }
        });
        let places = places.collect::<Result<Vec<_>>>()?;
        places.iter().try_for_each(|(_, place)| io::adapter::writable(place, if_exists))?;
        places.iter().try_for_each(|(name, place)| self.save_with(name, place, if_exists))
    }
}
