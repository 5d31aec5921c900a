//! Adapter directories as PEFT has them: `adapter_config.json` and `adapter_model.safetensors`
//! (or `adapter_model.bin`, which is read and not written).

use crate::{Error, Result, io};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Name of the configuration.
pub const CONFIG: &str = "adapter_config.json";
/// Name of the tensors.
pub const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT called them before, and reads where the others are not there.
const PICKLE: &str = "adapter_model.bin";

/// The configuration and the tensors of an adapter directory, as they are there, and the tensors' file. What they mean is
/// for [`Peft::load`](crate::Peft::load) to say.
pub fn read(dir: &Path) -> Result<(Value, BTreeMap<String, Tensor>, PathBuf)> {
    let config = dir.join(CONFIG);
    if !config.exists() && dir.join(io::hub::CONFIG).exists() {
        let message = "is not there, only config.json: this is a model and no adapter; open it with io::hub";
        return Err(Error::format(config, message));
    }
    let json = io::read_json(&config)?;
    let [tensors, pickle] = [TENSORS, PICKLE].map(|name| dir.join(name));
    let path = if pickle.exists() && !tensors.exists() { pickle } else { tensors };
    Ok((json, io::tensors::read(&path)?, path))
}

/// Writes both files, the tensors first: a directory with a configuration is complete.
pub fn write(dir: &Path, config: &Value, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    io::tensors::write(&dir.join(TENSORS), tensors)?;
    io::write_json(&dir.join(CONFIG), config)
}
