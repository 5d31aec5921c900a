//! Adapter directories as PEFT has them: `adapter_config.json` and `adapter_model.safetensors`
//! (or `adapter_model.bin`, which is read and not written).

use crate::methods::{Method, from_json};
use crate::{Error, Result, io};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// Name of the configuration.
pub const CONFIG: &str = "adapter_config.json";
/// Name of the tensors.
pub const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT called them before, and reads where the others are not there.
const PICKLE: &str = "adapter_model.bin";

/// The method and the tensors of an adapter directory. Names and shapes are checked when a model asks for them.
pub fn read(dir: &Path) -> Result<(Box<dyn Method>, BTreeMap<String, Tensor>)> {
    let config = dir.join(CONFIG);
    if !config.exists() && dir.join(io::hub::CONFIG).exists() {
        let message = "is not there, only config.json: this is a model and no adapter; open it with io::hub";
        return Err(Error::format(config, message));
    }
    let method = from_json(io::read_json(&config)?, &config.display().to_string())?;
    let [tensors, pickle] = [TENSORS, PICKLE].map(|name| dir.join(name));
    let path = if pickle.exists() && !tensors.exists() { pickle } else { tensors };
    Ok((method, io::tensors::read(&path)?))
}

/// Writes both files, the tensors first: a directory with a configuration is complete.
pub fn write(dir: &Path, config: &Value, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    io::tensors::write(&dir.join(TENSORS), tensors)?;
    io::write_json(&dir.join(CONFIG), config)
}
