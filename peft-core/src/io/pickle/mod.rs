//! Weights as `torch.save` writes them: a zip of a pickle, which says what the tensors are, and of their bytes.
//!
//! A pickle is a program. The one that runs it here (`machine`) has text, numbers, tuples and dictionaries, and calls the
//! few functions that put a tensor together (`value`); whatever else it asks for is refused by name. No code of the file
//! is ever run, and nothing is allocated that the file has not the bytes for.

mod archive;
mod machine;
mod refusal;
mod value;
mod view;

use crate::error::{Error, Result};
use crate::io::pickle::archive::Archive;
use crate::io::pickle::refusal::{Refusal, Refused, broken, foreign};
use crate::io::pickle::value::Value;
use crate::io::pickle::view::View;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use tch::{Kind, Tensor};

/// How many times all bytes of a file may be asked for: names can share bytes (tied weights), within reason.
const SHARED: usize = 16;

/// Whether a file of this name is read here: `.bin`, and PyTorch's other endings.
pub(super) fn is_named(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["bin", "pt", "pth"].iter().any(|own| e.eq_ignore_ascii_case(own)))
}

/// Hands over the tensors of a file by name, shape and dtype, in the file's order; the last argument reads one.
pub(super) fn each(
    path: &Path,
    file: &[u8],
    mut take: impl FnMut(String, &[i64], Kind, &dyn Fn() -> Result<Tensor>) -> Result<()>,
) -> Result<()> {
    let refused = |e: Refusal| match e.foreign {
        true => Error::format(path, format!("{}. None of it was run; {}", e.what, convert(path))),
        false => Error::format(path, e.what),
    };
    let archive = Archive::open(file).map_err(refused)?;
    let views = views(&archive).map_err(refused)?;
    let bytes = views.iter().try_fold(0usize, |sum, (_, view)| sum.checked_add(view.bytes()?));
    if bytes.is_none_or(|bytes| bytes > file.len().saturating_mul(SHARED)) {
        let what = format!("has tensors of more than {SHARED} times its size: is it made to fill memory?");
        return Err(refused(what.into()));
    }
    for (name, view) in views {
        let place = format!("tensor `{}`", name.escape_debug());
        let read = || view.read(&archive).map_err(|e| refused(e.at(&place)));
        take(name.to_owned(), &view.shape, view.kind, &read)?;
    }
    Ok(())
}

/// The tensors that the pickle names.
fn views<'a>(archive: &Archive<'a>) -> Refused<Vec<(&'a str, View)>> {
    let (top, mut heap) =
        machine::run(archive.pickle()?, archive).map_err(|e| e.at(&archive.name("data.pkl")))?;
    let Value::Dict(top) = top else {
        return foreign(format!("is {} and no dictionary of weights", heap.describe(top)));
    };
    let (mut views, mut names) = (Vec::new(), BTreeSet::new());
    for (key, value) in heap.take_dict(top) {
        let Value::Text(name) = key else {
            return foreign(format!(
                "has a key that is {}, expected the name of a weight",
                heap.describe(key)
            ));
        };
        let shown = name.escape_debug();
        let Some(view) = heap.tensor(value) else {
            let what = format!("has under `{shown}` {} and no tensor", heap.describe(value));
            return match heap.has_tensors(value) {
                true => foreign(format!(
                    "{what}: it is a checkpoint of training, whose weights may be w['{shown}']"
                )),
                false => foreign(what),
            };
        };
        if !names.insert(name) {
            return broken(format!("has two tensors called `{shown}`"));
        }
        views.push((name, view));
    }
    Ok(views)
}

/// The command that makes safetensors of a file. It runs nothing of the file, either.
fn convert(path: &Path) -> String {
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    let from = path.file_name().and_then(OsStr::to_str).filter(|name| plain(name)).unwrap_or("FILE");
    let to = safetensors(from);
    format!(
        "save it again with safe_serialization=True, or convert it: python -c \"import torch; from safetensors.torch \
         import save_file; w = torch.load('{from}', 'cpu', weights_only=True); \
         save_file({{k: t.clone().contiguous() for k, t in w.items()}}, '{to}', {{'format': 'pt'}})\""
    )
}

/// What a file of weights is called as safetensors.
fn safetensors(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    match stem.strip_prefix("pytorch_").unwrap_or(stem) {
        own if own.starts_with("adapter_model") || own.starts_with("model") => format!("{own}.safetensors"),
        _ => "model.safetensors".to_owned(),
    }
}
