//! Writing Hub model directories.

use crate::error::{Error, Result};
use crate::hub::quantised;
use crate::hub::shards::{INDEX, PICKLE, PICKLE_INDEX, WEIGHTS};
use crate::io::folder::{Occupant, is_there};
use crate::io::names::MODEL as CONFIG;
use crate::io::saving::Saving;
use crate::io::write::json;
use crate::io::{IfExists, dtype};
use crate::peft::Peft;
use crate::{io, quant};
use serde_json::Value;
use std::io::Write;
use std::path::{Component, Path};

/// Files that a model's directory may have for its tokenizer and its chats.
pub const TOKENIZER: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// What a save is in the way of.
const OWN: Occupant = ("a model", &[CONFIG, WEIGHTS, INDEX, PICKLE, PICKLE_INDEX]);
/// What it is not to be mixed with.
const OTHER: Occupant = ("an adapter", &[io::adapter::CONFIG]);

/// Tries whether a model can be saved in `dir`: makes the directory, and a file in it that is gone at once. Long work
/// asks that before it begins.
///
/// # Errors
/// As [`save_with`].
pub fn writable(dir: impl AsRef<Path>, if_exists: IfExists) -> Result<()> {
    begin(dir.as_ref(), if_exists).map(drop)
}

fn begin(dir: &Path, if_exists: IfExists) -> Result<Saving> {
    Saving::begin_beside(dir, CONFIG, if_exists, [OWN, OTHER])
}

/// Writes the base as a model directory: `config.json`, as it was read but for what has changed since, and
/// `model.safetensors`. Tokenizer and generation settings are copied from `source`, if that is given and has them. An
/// adapter is folded in first: `save(&peft.merged(&["mine"])?, ..)`. The files are put in place as one.
///
/// # Errors
/// [`Error::Occupied`] for a directory with a model, such as the one that the base was opened from, or with an adapter:
/// [`save_with`] replaces them. A file that cannot be read or written.
pub fn save(peft: &Peft, dir: impl AsRef<Path>, source: Option<&Path>) -> Result<()> {
    save_with(peft, dir, source, IfExists::Refuse)
}

/// As [`save`], over a model that is there if `if_exists` says so. Its shards, their index and its pickles go, and so do
/// those of its tokenizer's files that `source` has not; without `source` these stay. A directory with an adapter is refused
/// in any case.
///
/// # Errors
/// As [`save`].
pub fn save_with(
    peft: &Peft,
    dir: impl AsRef<Path>,
    source: Option<&Path>,
    if_exists: IfExists,
) -> Result<()> {
    let dir = dir.as_ref();
    let dims = &peft.outline().dims;
    let Some(mut config) = peft.architecture().json() else {
        let message =
            "has no config.json (`Architecture::json`): its tensors can be saved with io::tensors::write";
        return Err(Error::config(dims.model(), "saving", message));
    };
    let words = dims.word_embedding().and_then(|name| peft.base().find(name));
    if let (Some(fields), Some(name)) = (config.as_object_mut(), words.and_then(|w| dtype(w.kind()))) {
        // transformers 4 calls it torch_dtype, and 5 reads that too.
        let field = if fields.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        fields.insert(field.into(), name.into());
    }
    quantised::describe(peft, &mut config);
    let mut tensors = peft.base().tensors();
    for (name, w) in peft.base().nf4s() {
        quant::file::put(&name, &w, &mut tensors)?;
    }

    let mut saving = begin(dir, if_exists)?;
    // A directory's own files are where they belong.
    if let Some(source) = source.filter(|source| !same(source, dir)) {
        for name in ["generation_config.json"].iter().chain(&TOKENIZER) {
            let from = source.join(name);
            if !from.exists() {
                saving.remove(name);
                continue;
            }
            let bytes = std::fs::read(&from).map_err(|e| Error::file(&from, e))?;
            saving.put(name, |file| file.write_all(&bytes).map_err(|e| Error::file(dir.join(name), e)))?;
        }
    }
    saving.put(WEIGHTS, |file| io::tensors::put(&dir.join(WEIGHTS), file, &tensors))?;
    saving.put(CONFIG, |file| json(&dir.join(CONFIG), file, &config))?;
    others(dir)?.iter().for_each(|name| saving.remove(name));
    match (if_exists, saving.replaced()) {
        (IfExists::Refuse, Some(path)) => Err(Error::Occupied { path, what: "another file" }),
        _ => saving.commit(),
    }
}

/// Whether two paths lead to one directory.
fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Other weights of a model than its one file: the index and the shards of a model that is in several, and the pickles of an
/// older form. Some readers would take those for the newer ones, or read all that there are.
fn others(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let kinds = [("model-", ".safetensors", INDEX), ("pytorch_model-", ".bin", PICKLE_INDEX)];
    for entry in std::fs::read_dir(dir).map_err(|e| Error::file(dir, e))? {
        let name = entry.map_err(|e| Error::file(dir, e))?.file_name();
        // model-00001-of-00002.safetensors, as transformers calls and clears them.
        let number = |n: &str| n.len() == 5 && n.bytes().all(|b| b.is_ascii_digit());
        let shard = |n: &str, (start, end, _): (&str, &str, &str)| {
            let middle = n.strip_prefix(start).and_then(|n| n.strip_suffix(end));
            middle.and_then(|m| m.split_once("-of-")).is_some_and(|(a, b)| number(a) && number(b))
        };
        if name.to_str().is_some_and(|n| n == PICKLE || kinds.into_iter().any(|kind| shard(n, kind))) {
            names.extend(name.into_string());
        }
    }
    for (_, end, index) in kinds {
        let path = dir.join(index);
        if !is_there(&path) {
            continue;
        }
        let json = io::read_json(&path).unwrap_or_default();
        let map = json.get("weight_map").and_then(Value::as_object);
        let listed = map.into_iter().flat_map(|m| m.values()).filter_map(Value::as_str);
        // Files beside the index, and nothing else.
        let own = |name: &&str| {
            let parts: Vec<_> = Path::new(name).components().collect();
            matches!(parts.as_slice(), [Component::Normal(_)]) && name.ends_with(end) && *name != WEIGHTS
        };
        names.extend(listed.filter(own).map(str::to_owned));
        names.push(index.to_owned());
    }
    names.sort();
    names.dedup();
    Ok(names)
}
