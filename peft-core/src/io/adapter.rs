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

/// Name of the file with the names of a classifier's classes, `{"0": "cold", "1": "warm"}`. Python PEFT has no place for
/// them, and passes over the file.
pub const CLASSES: &str = "id2label.json";

/// Name of the file that says what base an adapter is for ([`Provenance`](crate::provenance::Provenance)). Python PEFT passes
/// over it.
pub const PROVENANCE: &str = "peft_rs.json";

/// What an adapter directory has.
#[derive(Debug)]
pub struct Files {
    /// `adapter_config.json`.
    pub config: Value,
    pub tensors: BTreeMap<String, Tensor>,
    /// Names of the classes, in the order of their logits; empty where there are none.
    pub classes: Vec<String>,
    /// `peft_rs.json`, where it is there.
    pub provenance: Option<Value>,
}

/// The files of an adapter directory, of one save, as they are there, and the tensors' file. What they mean is for
/// [`Peft::load`](crate::Peft::load) to say. A save that was killed between the files is finished first.
///
/// # Errors
/// Files that are missing or malformed, and anything that is no adapter directory: by what it is.
pub fn read(dir: impl AsRef<Path>) -> Result<(Files, PathBuf)> {
    let dir = dir.as_ref();
    whole(dir, CONFIG, || read_files(dir))
}

fn read_files(dir: &Path) -> Result<(Files, PathBuf)> {
    let path = dir.join(CONFIG);
    if !path.exists() && dir.join(names::MODEL).exists() {
        let message =
            "is not there, only config.json: this is a model and no adapter; open it with hub::open";
        return Err(Error::format(path, message));
    }
    let config = io::read_json(&path)?;
    // What the configuration is of says more than that there are no such tensors.
    peft_type(&config, &path.display().to_string())?;
    let [tensors, pickle] = [TENSORS, PICKLE].map(|name| dir.join(name));
    let path = if pickle.exists() && !tensors.exists() { pickle } else { tensors };
    let (tensors, classes, provenance) = (io::tensors::read(&path)?, classes(dir)?, provenance(dir)?);
    Ok((Files { config, tensors, classes, provenance }, path))
}

/// Names of the classes that an adapter directory has, in the order of their logits; empty where it has none. To open the
/// adapter's base with as many: `hub::open(base, device, hub::Options::named(classes))`.
///
/// # Errors
/// A directory without an adapter; a file whose numbers are not those from 0 on.
pub fn classes(dir: impl AsRef<Path>) -> Result<Vec<String>> {
    let dir = dir.as_ref();
    let path = dir.join(CLASSES);
    match exists(dir)? {
        false => return Err(Error::format(dir.join(CONFIG), "is not there: this is no adapter's directory")),
        true if !path.exists() => return Ok(Vec::new()),
        true => {}
    }
    let json = io::read_object(&path)?;
    let fields = json.as_object().into_iter().flatten();
    let named: BTreeMap<usize, &str> =
        fields.filter_map(|(i, v)| Some((i.parse().ok()?, v.as_str()?))).collect();
    let all = json.as_object().map_or(0, serde_json::Map::len);
    if named.len() != all || !named.keys().copied().eq(0..all) {
        let message = "should have a name for every class from 0 on: {\"0\": \"cold\", \"1\": \"warm\"}";
        return Err(Error::format(path, message));
    }
    Ok(named.into_values().map(str::to_owned).collect())
}

/// What an adapter directory says of the base that the adapter is for; `None` where it has no such file.
pub(crate) fn provenance(dir: &Path) -> Result<Option<Value>> {
    let path = dir.join(PROVENANCE);
    path.exists().then(|| io::read_object(&path)).transpose()
}

/// What a save is in the way of.
const OWN: Occupant = ("an adapter", &[CONFIG, TENSORS, PICKLE, CLASSES, PROVENANCE]);
/// What it is not to be mixed with.
const OTHER: Occupant = ("a model", &[names::MODEL]);

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
    Saving::begin_beside(dir, CONFIG, if_exists, [OWN, OTHER])
}

/// Writes the files as one: a directory has all of the old adapter, all of the new, or, for the moment in between,
/// none. Killed in that moment, the save is finished by whoever reads or saves next.
///
/// # Errors
/// [`Error::Occupied`] for a directory with an adapter or a model, unless `if_exists` says otherwise; a place that cannot
/// be written to.
pub fn write(dir: impl AsRef<Path>, files: &Files, if_exists: IfExists) -> Result<()> {
    let dir = dir.as_ref();
    let mut saving = begin(dir, if_exists)?;
    saving.put(TENSORS, |file| io::tensors::put(&dir.join(TENSORS), file, &files.tensors))?;
    match files.classes.as_slice() {
        [] => saving.remove(CLASSES),
        classes => {
            let numbered =
                (0..).map(|i: usize| i.to_string()).zip(classes.iter().cloned().map(Value::String));
            let named = Value::Object(numbered.collect());
            saving.put(CLASSES, |file| json(&dir.join(CLASSES), file, &named))?;
        }
    }
    match &files.provenance {
        None => saving.remove(PROVENANCE),
        Some(made) => saving.put(PROVENANCE, |file| json(&dir.join(PROVENANCE), file, made))?,
    }
    saving.put(CONFIG, |file| json(&dir.join(CONFIG), file, &files.config))?;
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
