//! The weight files of a Hub model directory.

use crate::error::{Error, Result};
use crate::io;
use crate::io::directory;
use crate::io::directory::GGUF;
use crate::warning::Warning;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use tch::Tensor;

/// Name of a single file.
pub(super) const WEIGHTS: &str = "model.safetensors";
/// Name of the list of shards.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The same, as PyTorch's zips of pickles.
pub(super) const PICKLE: &str = "pytorch_model.bin";
pub(super) const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";

/// Where a model's weights are.
#[derive(Debug)]
pub(super) struct WeightFiles {
    /// What errors call them: the file, or the index of the shards.
    pub place: PathBuf,
    pub paths: Vec<PathBuf>,
    /// Tensors that two shards have, the same in both.
    pub repeated: BTreeSet<String>,
    /// Tensors that the index has and no shard, with the shard where they should be.
    pub absent: BTreeMap<String, String>,
    pub warnings: Vec<Warning>,
}

impl WeightFiles {
    /// `model.safetensors`, or `model.safetensors.index.json` and the shards that it lists; where there is neither, the
    /// same of `pytorch_model.bin`. As in transformers, the single file counts where there are both, and of a shard all
    /// tensors.
    pub fn find(dir: &Path) -> Result<Self> {
        let kinds =
            [(WEIGHTS, INDEX), (PICKLE, PICKLE_INDEX)].map(|(one, all)| (dir.join(one), dir.join(all)));
        let Some((single, index)) = kinds.into_iter().find(|(one, index)| one.exists() || index.exists())
        else {
            return Err(missing(dir));
        };
        if !single.exists() {
            return Self::shards(dir, index);
        }
        let beside = index.exists().then(|| {
            Warning::new(index.display(), file(&single), "is beside it and has all: no shard is read")
        });
        Ok(Self {
            place: single.clone(),
            paths: vec![single],
            repeated: BTreeSet::new(),
            absent: BTreeMap::new(),
            warnings: beside.into_iter().collect(),
        })
    }

    fn shards(dir: &Path, index: PathBuf) -> Result<Self> {
        let mut absent = weight_map(&index)?;
        let shards: BTreeSet<PathBuf> = absent.values().map(|shard| dir.join(shard)).collect();
        let (mut owners, mut warnings) = (BTreeMap::<String, &PathBuf>::new(), Vec::new());
        let mut repeated = BTreeSet::new();
        for shard in &shards {
            if !shard.exists() {
                let message = format!(
                    "lists the shard `{}`, which is not there: fetch it into this directory",
                    file(shard)
                );
                return Err(Error::format(index, message));
            }
            for name in io::tensors::phantoms(shard)?.into_keys() {
                absent.remove(&name);
                let Some(first) = owners.insert(name.clone(), shard) else { continue };
                let both = format!("is in both {} and {}", file(first), file(shard));
                if !same(&name, first, shard)? {
                    let message = format!(
                        "`{name}` {both}, and not the same: fetch the shards again, all of one version"
                    );
                    return Err(Error::format(index, message));
                }
                warnings.push(Warning::new(index.display(), &name, format!("{both}, and the same")));
                repeated.insert(name);
            }
        }
        for (name, shard) in &absent {
            warnings.push(Warning::new(
                index.display(),
                name,
                format!("should be in {shard}, and no shard has it"),
            ));
        }
        Ok(Self { place: index, paths: shards.into_iter().collect(), repeated, absent, warnings })
    }
}

/// There are no weights.
fn missing(dir: &Path) -> Error {
    let hint = directory::gguf(dir).map(|name| format!("; {name} is, {GGUF}")).unwrap_or_default();
    Error::format(dir.join(WEIGHTS), format!("is not there, nor {INDEX}, nor {PICKLE}{hint}"))
}

/// The shard of each tensor, as the index has it.
fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let json = io::read_object(index)?;
    let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
        return Err(Error::format(index, "has no `weight_map`"));
    };
    let shard = |(name, shard): (&String, &Value)| {
        // A shard is a file beside the index and nothing else.
        let parts: Vec<_> = shard.as_str().map(|s| Path::new(s).components().collect()).unwrap_or_default();
        match parts.as_slice() {
            [Component::Normal(file)] => Ok((name.clone(), file.to_string_lossy().into_owned())),
            _ => {
                let shard = shard.as_str().map_or(shard.to_string(), str::to_owned);
                let message =
                    format!("`{shard}`, where `{name}` should be, is not the name of a file beside it");
                Err(Error::format(index, message))
            }
        }
    };
    map.iter().map(shard).collect()
}

/// Whether two files have the same tensor of that name.
fn same(name: &str, first: &Path, second: &Path) -> Result<bool> {
    let read = |path: &Path| -> Result<Option<Tensor>> {
        let mut found = None;
        io::tensors::read_each(path, |other, tensor| {
            found = found.take().or((other == name).then_some(tensor));
            Ok(())
        })?;
        Ok(found)
    };
    match (read(first)?, read(second)?) {
        (Some(a), Some(b)) => Ok(a.size() == b.size() && a.kind() == b.kind() && a.f_equal(&b)?),
        _ => Ok(false),
    }
}

fn file(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
