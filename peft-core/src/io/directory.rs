//! What lies at a path where a model's directory is expected.

use crate::error::{Error, Result};
use crate::io::{names, read_json, read_object, settle};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The `config.json` of a model directory, and its path. A save that was killed is finished first.
///
/// # Errors
/// A file that is malformed, and anything that is not a model directory: by what it is, and what to do about it.
pub(crate) fn config(dir: &Path) -> Result<(Value, PathBuf)> {
    let path = dir.join(names::MODEL);
    if dir.is_file() {
        return Err(Error::format(dir, format!("is {}", file(dir))));
    }
    settle(dir, names::MODEL)?;
    if !path.exists() {
        return Err(Error::format(path, format!("is not there: {}", other(dir))));
    }
    Ok((read_object(&path)?, path))
}

const HUB: &str = "a model is a directory of the Hub's form, with config.json and model.safetensors";

/// What to do with a file of llama.cpp.
pub(crate) const GGUF: &str = "in llama.cpp's format; fetch the model in the Hub's form, or convert it with transformers: \
                               from_pretrained(dir, gguf_file=name), save_pretrained(new_dir)";

/// What a file is that stands for a model.
fn file(path: &Path) -> String {
    let mut magic = [0; 4];
    let gguf = File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"GGUF";
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension {
        _ if gguf || extension == "gguf" => format!("a GGUF file, {GGUF}"),
        "safetensors" | "bin" | "pt" | "pth" => {
            format!("a file of tensors, without a configuration: {HUB}; give the directory")
        }
        "json" => format!("a file: {HUB}; give the directory"),
        _ => format!("a file: {HUB}"),
    }
}

/// What a directory without a `config.json` is instead.
fn other(dir: &Path) -> String {
    let has = |name: &str| dir.join(name).exists();
    if !dir.exists() {
        let text = dir.to_string_lossy();
        let hub = !text.starts_with(['.', '/']) && text.split('/').count() == 2;
        let hint = format!("; for a model of the Hub, fetch it first: hf download {text} --local-dir <dir>");
        return format!(
            "there is no such directory (No such file or directory){}",
            if hub { &hint } else { "" }
        );
    }
    if has(names::ADAPTER) {
        let mlx = read_json(dir.join(names::ADAPTER))
            .is_ok_and(|json| json.get("peft_type").is_none() && json.get("fine_tune_type").is_some());
        let whose = if mlx {
            "one of MLX's (mlx-lm), which cannot be read"
        } else {
            "open its base, and load it with Peft::load"
        };
        return format!("only adapter_config.json is, so this is an adapter and no model; {whose}");
    }
    if let Some(name) = gguf(dir) {
        return format!("{name} is, {GGUF}");
    }
    let what = if has("params.json") {
        "params.json is, so this is Meta's own form of a Llama; fetch the model in the Hub's (its name there ends with -hf)"
    } else if has("model_index.json") {
        "model_index.json is, so this is a pipeline of diffusers and no language model"
    } else if has("snapshots") {
        "this is a folder of the Hub's cache; the model is in one of its snapshots"
    } else {
        return format!("there is no such file here (No such file or directory); {HUB}");
    };
    what.to_owned()
}

/// The name of a GGUF file in a directory.
pub(crate) fn gguf(dir: &Path) -> Option<String> {
    let entries = std::fs::read_dir(dir).ok()?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.find(|name| name.ends_with(".gguf"))
}
