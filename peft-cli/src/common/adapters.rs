//! A model with its head and its adapters, as the command line names them.

use crate::output::Output;
use crate::source::Source;
use anyhow::{Context, Result, ensure};
use clap::Args;
use peft_core::Peft;
use peft_core::hub::{self, Head, Options};
use peft_core::io::{adapter, tensors};
use peft_core::provenance::OtherBase;
use peft_core::tch::Device;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An adapter as it is given: SOURCE, which is called by its folder's name, or NAME=SOURCE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub name: Option<String>,
    pub source: Source,
}

impl FromStr for Given {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let source = |text: &str| text.parse::<Source>().map_err(anyhow::Error::from);
        match text.split_once('=') {
            // A folder may have a `=` in its own name.
            Some((name, rest)) if !Path::new(text).exists() => {
                ensure!(!name.is_empty() && !rest.is_empty(), "expected SOURCE or NAME=SOURCE");
                Ok(Self { name: Some(name.to_owned()), source: source(rest)? })
            }
            _ => Ok(Self { name: None, source: source(text)? }),
        }
    }
}

/// Adapters of a model, and the head that they are for.
#[derive(Debug, Clone, Default, Args)]
pub struct Adapters {
    /// Adapter: a directory, or an id of the Hub, called by its folder's name or by NAME; of a directory with several,
    /// all; may be repeated
    #[arg(long = "adapter", value_name = "[NAME=]SOURCE")]
    pub adapters: Vec<Given>,
    #[command(flatten)]
    pub fit: Fit,
}

/// How adapters go with a model.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Fit {
    /// Classes of a classifier's new head [default: those of the adapter, or of the model's own head]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub classes: Option<i64>,
    /// Take an adapter that was made for another base, with a warning
    #[arg(long)]
    pub force: bool,
}

impl Fit {
    /// What becomes of an adapter that was made for another base.
    pub fn other(self) -> OtherBase {
        OtherBase::accept(self.force)
    }
}

/// A model, and where it lies.
#[derive(Debug)]
pub struct Opened {
    pub peft: Peft,
    pub dir: PathBuf,
    /// Names of its adapters, in the order in which they were given.
    pub names: Vec<String>,
}

/// Opens a model with adapters. What is passed over is said.
pub fn open(model: &Source, adapters: &Adapters, device: Device, output: &Output) -> Result<Opened> {
    let dirs = fetch(&adapters.adapters, output)?;
    let dir = model.model(output)?;
    let options = options(&dir, adapters.fit.classes, dirs.iter().map(|(_, dir)| dir.as_path()))?;
    let hub::Opened { mut peft, warnings, .. } = hub::open(&dir, device, options)?;
    output.warn(warnings);
    let names = load(&mut peft, &dirs, adapters.fit.other(), output)?;
    Ok(Opened { peft, dir, names })
}

/// Opens a model with one adapter, whose name is given back.
pub fn open_for(
    model: &Source,
    given: &Given,
    fit: Fit,
    device: Device,
    output: &Output,
) -> Result<(Opened, String)> {
    let adapters = Adapters { adapters: vec![given.clone()], fit };
    let opened = open(model, &adapters, device, output)?;
    match opened.names.as_slice() {
        [name] => {
            let name = name.clone();
            Ok((opened, name))
        }
        names => anyhow::bail!(
            "{}: {} adapters are there ({}), expected one",
            given.source.name(),
            names.len(),
            names.join(", ")
        ),
    }
}

fn fetch(given: &[Given], output: &Output) -> Result<Vec<(Given, PathBuf)>> {
    given.iter().map(|g| Ok((g.clone(), g.source.adapter(output)?))).collect()
}

/// The head that the adapters were trained with, or else the stored one.
pub fn options<'a>(
    model: &Path,
    classes: Option<i64>,
    adapters: impl Iterator<Item = &'a Path>,
) -> Result<Options> {
    let dims = hub::architecture(model, Head::Stored)?.dims();
    if dims.causal() {
        return Ok(Head::Stored.into());
    }
    if let Some(number) = classes {
        return Ok(Head::Classes(number).into());
    }
    for dir in adapters {
        if !adapter::exists(dir)? {
            continue;
        }
        let head = dims.head.as_deref();
        let (names, own) = (adapter::classes(dir)?, head_rows(&dir.join(adapter::TENSORS), head)?);
        let options = match own {
            _ if !names.is_empty() => Options::named(names),
            Some(number) => Head::Classes(number).into(),
            None => continue,
        };
        // The model's own head is for other classes: the adapter brings one, for which there has to be a place.
        let stored = head_rows(&model.join("model.safetensors"), head)?;
        let other = own.filter(|own| stored.is_some_and(|stored| stored != *own));
        return Ok(Options { head: other.map_or(options.head, Head::Fresh), ..options });
    }
    Ok(Head::Stored.into())
}

/// Rows of the head in a file of tensors, if it has one: the number of its classes.
fn head_rows(path: &Path, head: Option<&str>) -> Result<Option<i64>> {
    let Some(head) = head else { return Ok(None) };
    if !path.exists() {
        return Ok(None);
    }
    let end = format!("{head}.weight");
    let found = tensors::phantoms(path)?.into_iter().find(|(name, _)| name.ends_with(&end));
    Ok(found.and_then(|(_, t)| t.size().first().copied()))
}

/// Loads the adapters; of a directory with several, all. Their names.
fn load(
    peft: &mut Peft,
    given: &[(Given, PathBuf)],
    other: OtherBase,
    output: &Output,
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (Given { name, source }, dir) in given {
        let one = match name {
            Some(name) => Some(name.clone()),
            None if adapter::exists(dir)? => Some(adapter_name(source, dir)?),
            None => None,
        };
        match one {
            Some(name) => {
                output.warn(peft.load_with(&name, dir, other)?);
                names.push(name);
            }
            None => {
                let loaded = peft.load_all_with(dir, other)?;
                output.warn(loaded.warnings);
                names.extend(loaded.names);
            }
        }
    }
    Ok(names)
}

/// What an adapter is called that is given without a name: the last part of its id, or its folder.
pub fn adapter_name(source: &Source, dir: &Path) -> Result<String> {
    let folder = if Path::new(source.name()).exists() {
        let folder = dir.canonicalize().with_context(|| dir.display().to_string())?;
        folder.file_name().and_then(|n| n.to_str()).map(str::to_owned)
    } else {
        let id = source.name().split('@').next().unwrap_or_default();
        id.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
    };
    folder.with_context(|| format!("{}: give it a name, NAME=SOURCE", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_given_one_way() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a=b");
        std::fs::create_dir(&odd).unwrap();
        let odd = odd.display().to_string();
        let parse = |text: &str| text.parse::<Given>().unwrap();
        let given = |name: Option<&str>, source: &str| {
            let source = source.parse().unwrap_or_else(|never| match never {});
            Given { name: name.map(str::to_owned), source }
        };
        assert_eq!(parse("runs/mine"), given(None, "runs/mine"));
        assert_eq!(parse("mine=runs/x"), given(Some("mine"), "runs/x"));
        assert_eq!(parse("mine=runs/x=y"), given(Some("mine"), "runs/x=y"));
        assert_eq!(parse(&odd), given(None, &odd));
        assert_eq!(parse(&format!("mine={odd}")), given(Some("mine"), &odd));
        assert!("=runs".parse::<Given>().is_err() && "mine=".parse::<Given>().is_err());
    }
}
