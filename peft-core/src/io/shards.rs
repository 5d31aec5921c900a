//! The weight files of a Hub model directory.

use crate::{Error, Result, io};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Name of a single file.
pub(super) const WEIGHTS: &str = "model.safetensors";
/// Name of the list of shards.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// `model.safetensors`, or `model.safetensors.index.json` and the shards that it lists.
pub(super) fn weight_files(dir: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let (single, index) = (dir.join(WEIGHTS), dir.join(INDEX));
    if single.exists() {
        return Ok((single.clone(), vec![single]));
    }
    if !index.exists() {
        let pickles = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
        let pickle = pickles.iter().find(|name| dir.join(name).exists());
        let hint = pickle.map(|p| format!("; {p} is of Python pickles: save the model again as safetensors"));
        let hint = hint.unwrap_or_default();
        return Err(Error::format(single, format!("is not there, nor {INDEX}{hint}")));
    }
    let json = io::read_json(&index)?;
    let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
        return Err(Error::format(index, "has no `weight_map`"));
    };
    let (mut shards, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (name, shard) in map {
        // A shard is a file beside the index and nothing else.
        let parts: Vec<_> = shard.as_str().map(|s| Path::new(s).components().collect()).unwrap_or_default();
        let [Component::Normal(file)] = parts.as_slice() else {
            let shard = shard.as_str().map_or(shard.to_string(), str::to_owned);
            let message = format!("`{shard}`, where `{name}` should be, is not the name of a file beside it");
            return Err(Error::format(index, message));
        };
        shards.insert(dir.join(file));
    }
    for shard in &shards {
        if !shard.exists() {
            let name = shard.file_name().unwrap_or_default().display();
            let message =
                format!("lists the shard `{name}`, which is not there: fetch it into this directory");
            return Err(Error::format(index, message));
        }
        names.extend(io::tensors::hollow(shard)?.into_keys());
    }
    match map.keys().find(|name| !names.contains(*name)) {
        Some(name) => Err(Error::format(index, format!("lists `{name}`, which no shard has"))),
        None => Ok((index, shards.into_iter().collect())),
    }
}
