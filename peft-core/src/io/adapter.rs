//! Adapter directories as PEFT has them: `adapter_config.json` and `adapter_model.safetensors`
//! (or `adapter_model.bin`, which is read and not written).

use crate::error::{Error, Result};
use crate::io;
use crate::io::folder::{IfExists, Occupant};
use crate::io::names;
use crate::io::saving::{Saving, settle, whole};
use crate::io::write::json;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Name of the configuration.
pub const CONFIG: &str = names::ADAPTER;
/// Name of the tensors.
pub const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT called them before, and reads where the others are not there.
const PICKLE: &str = "adapter_model.bin";

/// The configuration and the tensors of an adapter directory, of one save, as they are there, and the tensors' file. What
/// they mean is for [`Peft::load`](crate::peft::Peft::load) to say. A save that was killed between the two files is finished first.
pub fn read(dir: impl AsRef<Path>) -> Result<(Value, BTreeMap<String, Tensor>, PathBuf)> {
    let dir = dir.as_ref();
    whole(dir, CONFIG, || read_files(dir))
}

fn read_files(dir: &Path) -> Result<(Value, BTreeMap<String, Tensor>, PathBuf)> {
    let config = dir.join(CONFIG);
    if !config.exists() && dir.join(names::MODEL).exists() {
        let message =
            "is not there, only config.json: this is a model and no adapter; open it with hub::open";
        return Err(Error::format(config, message));
    }
    let json = io::read_json(&config)?;
    // What the configuration is of says more than that there are no such tensors.
    peft_type(&json, &config.display().to_string())?;
    let [tensors, pickle] = [TENSORS, PICKLE].map(|name| dir.join(name));
    let path = if pickle.exists() && !tensors.exists() { pickle } else { tensors };
    Ok((json, io::tensors::read(&path)?, path))
}

/// What a save is in the way of.
const OWN: &[Occupant] = &[(CONFIG, "an adapter"), (TENSORS, "an adapter"), (PICKLE, "an adapter")];
/// What it is not to be mixed with.
const OTHERS: &[Occupant] = &[(names::MODEL, "a model")];

/// Whether there is an adapter in `dir`, one whose save was killed included: that is finished first.
///
/// # Errors
/// A save that cannot be finished.
pub fn exists(dir: impl AsRef<Path>) -> Result<bool> {
    let dir = dir.as_ref();
    settle(dir, CONFIG)?;
    Ok(dir.join(CONFIG).exists())
}

/// Tries whether an adapter can be saved in `dir`: makes the directory, and a file in it that is gone at once. Long work
/// asks that before it begins.
///
/// # Errors
/// As [`write()`].
pub fn writable(dir: impl AsRef<Path>, if_exists: IfExists) -> Result<()> {
    let dir = dir.as_ref();
    begin(dir, if_exists).map(drop)
}

fn begin(dir: &Path, if_exists: IfExists) -> Result<Saving> {
    Saving::begin_beside(dir, CONFIG, if_exists, [OWN, OTHERS])
}

/// Writes both files as one: a directory has all of the old adapter, all of the new, or, for the moment in between,
/// none. Killed in that moment, the save is finished by whoever reads or saves next.
///
/// # Errors
/// [`Error::Occupied`] for a directory with an adapter or a model, unless `if_exists` says otherwise; a place that cannot
/// be written to.
pub fn write(
    dir: impl AsRef<Path>,
    config: &Value,
    tensors: &BTreeMap<String, Tensor>,
    if_exists: IfExists,
) -> Result<()> {
    let dir = dir.as_ref();
    let mut saving = begin(dir, if_exists)?;
    saving.put(TENSORS, |file| io::tensors::put(&dir.join(TENSORS), file, tensors))?;
    saving.put(CONFIG, |file| json(&dir.join(CONFIG), file, config))?;
    // Of the old one, for whoever reads that first.
    saving.remove(PICKLE);
    saving.commit()
}

/// The `peft_type` of a configuration, or what the configuration is of instead.
pub(crate) fn peft_type<'a>(config: &'a Value, place: &str) -> Result<&'a str> {
    let Some(fields) = config.as_object() else {
        return Err(Error::config(
            place,
            "peft_type",
            "is missing: the configuration should be a JSON object",
        ));
    };
    let Some(kind) = fields.get("peft_type").and_then(Value::as_str) else {
        let mlx = ["fine_tune_type", "lora_parameters", "num_layers"].iter().any(|f| fields.contains_key(*f));
        let message = match mlx {
            true => {
                "is missing: this is an adapter of MLX, and no one of PEFT's; its tensors have other names and \
                     shapes, so it has to be converted first"
            }
            false => "is missing, or not a string",
        };
        return Err(Error::config(place, "peft_type", message));
    };
    Ok(kind)
}
