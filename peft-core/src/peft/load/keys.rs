//! Names of tensors as other programs and versions spell them.

use crate::error::{Error, Result};
use crate::seam::{Outline, PREFIX};
use crate::warning::Warning;
use std::collections::BTreeMap;
use tch::Tensor;

/// What prompt-learning files have in place of [`PREFIX`].
const ONCE: &str = "base_model.";

/// How the name of DoRA's magnitude ends.
const MAGNITUDE: &str = ".lora_magnitude_vector";

/// The file's tensors under the names that PEFT writes.
///
/// # Errors
/// Two tensors with one name, and names that lack their beginning.
pub(super) fn plain(
    tensors: BTreeMap<String, Tensor>,
    outline: &Outline,
    place: &str,
    warnings: &mut Vec<Warning>,
) -> Result<BTreeMap<String, Tensor>> {
    check_beginnings(&tensors, outline, place)?;
    let (mut all, mut spellings) = (BTreeMap::new(), BTreeMap::<String, String>::new());
    // The first one that is spelled otherwise, as it is read, and how many there are.
    let mut other: Option<(String, String, usize)> = None;
    for (key, tensor) in tensors {
        let name = spelled(&key);
        if name != key {
            let (_, _, count) = other.get_or_insert_with(|| (key.clone(), name.clone(), 0));
            *count = count.saturating_add(1);
        }
        if let Some(first) = all.insert(name.clone(), tensor) {
            // PEFT itself writes a magnitude under both of its names, where it saves a whole embedding.
            if name.ends_with(MAGNITUDE) && same(&first, all.get(&name))? {
                continue;
            }
            let both = [spellings.get(&name).unwrap_or(&name).as_str(), &key].join("` and `");
            return Err(Error::config(place, &name, format!("is there twice, as `{both}`")));
        }
        spellings.insert(name, key);
    }
    if let Some((key, name, count)) = other {
        let message = format!("read as `{name}`; {count} names of the file are spelled in such another way");
        warnings.push(Warning::new(place, key, message));
    }
    Ok(all)
}

/// A key as PEFT writes it: without the adapter's name, which raw state dictionaries have, without the prefix of compiled
/// modules, and DoRA's magnitude without the module that holds it since.
fn spelled(key: &str) -> String {
    let key = key.replace("_orig_mod.", "");
    if key.contains(".modules_to_save.") {
        return key; // PEFT's own third copy of a bias, which LoRA reads
    }
    let parts: Vec<&str> = key.split('.').collect();
    let named = parts.len().saturating_sub(2);
    let parts = parts.iter().enumerate().filter(|(i, part)| !(**part == "default" && *i >= named));
    let key = parts.map(|(_, part)| *part).collect::<Vec<_>>().join(".");
    match key.strip_suffix(".weight") {
        Some(magnitude) if magnitude.ends_with(MAGNITUDE) => magnitude.to_owned(),
        _ => key,
    }
}

/// Says what is missing where all names lack the same beginning, rather than that each of them is unknown.
fn check_beginnings(tensors: &BTreeMap<String, Tensor>, outline: &Outline, place: &str) -> Result<()> {
    let inside = |path: &str| {
        outline.sites.iter().any(|s| {
            !s.name.is_empty() && path.strip_prefix(&s.name).is_some_and(|rest| rest.starts_with('.'))
        })
    };
    let Some(key) = tensors.keys().find(|key| key.contains('.')) else { return Ok(()) };
    if !tensors.keys().any(|key| key.starts_with(ONCE)) {
        if tensors.keys().any(|key| inside(key)) {
            let message =
                format!("lacks `{PREFIX}`, which PEFT's names start with: put it before every name");
            return Err(Error::config(place, key, message));
        }
        return Ok(());
    }
    let paths = || tensors.keys().filter_map(|key| key.strip_prefix(PREFIX).or(key.strip_prefix(ONCE)));
    if paths().any(&inside) {
        return Ok(());
    }
    let firsts = outline.sites.iter().filter_map(|s| s.name.split_once('.')).map(|(first, _)| first);
    for first in firsts.collect::<std::collections::BTreeSet<_>>() {
        if let Some(path) = paths().find(|path| inside(&format!("{first}.{path}"))) {
            let message = format!(
                "is `{first}.{path}` in this model: the adapter is for a model without a head, and this one has `{}`",
                outline.dims.head.as_deref().unwrap_or_default()
            );
            return Err(Error::config(place, path, message));
        }
    }
    Ok(())
}

/// The modules of PEFT's that hold the base's own weights, where it has wrapped them.
const WRAPPERS: [&str; 3] = [".token_adapter.", ".base_layer.", ".original_module."];

/// The base's parameter that a key names, if it does.
pub(super) fn param_of(key: &str, outline: &Outline) -> Option<String> {
    [PREFIX, ONCE].into_iter().find_map(|prefix| {
        let path = key.strip_prefix(prefix)?.to_owned();
        let plain = WRAPPERS.iter().fold(path, |path, wrapper| path.replacen(wrapper, ".", 1));
        outline.params.contains(&plain).then_some(plain)
    })
}

/// Takes out the copies that PEFT writes a second time, under their names in its tree of modules, where it saves a whole
/// embedding or head of which `modules_to_save` has a copy.
///
/// # Errors
/// A second one with other values: there is no telling which one is meant.
pub(super) fn drop_copies(tensors: &mut BTreeMap<String, Tensor>, place: &str) -> Result<()> {
    let again: Vec<String> = tensors.keys().filter(|key| key.ends_with(COPY)).cloned().collect();
    for key in again {
        let first = key.replace(COPY, ".weight");
        match tensors.get(&first) {
            Some(own) if !same(own, tensors.get(&key))? => {
                let message = format!("{place}: `{key}` and `{first}` should be equal");
                return Err(Error::Input(message));
            }
            Some(_) => drop(tensors.remove(&key)),
            None => {}
        }
    }
    Ok(())
}

/// How the name of such a copy ends.
const COPY: &str = ".modules_to_save.weight";

fn same(one: &Tensor, other: Option<&Tensor>) -> Result<bool> {
    Ok(match other {
        Some(other) => one.kind() == other.kind() && one.size() == other.size() && one.f_equal(other)?,
        None => false,
    })
}

/// Says it where the vocabulary has another size than the model's, before a shape that nobody understands does.
pub(super) fn check_vocabulary(
    tensors: &BTreeMap<String, Tensor>,
    outline: &Outline,
    place: &str,
) -> Result<()> {
    let Ok(sizes) = outline.dims.sizes() else { return Ok(()) };
    let (words, head) = (sizes.word_embedding.as_str(), outline.dims.head_weight());
    for (key, t) in tensors {
        let Some(param) = param_of(key, outline) else { continue };
        if outline.stored_name(&param) != words && Some(&param) != head.as_ref() {
            continue;
        }
        let own = outline.sites.iter().find(|s| param.strip_suffix(".weight") == Some(&s.name));
        let (Some(&[own, width]), &[rows, found]) = (own.map(|s| s.shape.as_slice()), t.size().as_slice())
        else {
            continue;
        };
        if own != rows && width == found && sizes.vocab == own {
            let hint = format!(
                ": the vocabulary was resized from {own} to {rows} tokens; resize the base first, \
                 `Peft::resized({rows}, ..)`, or open the base that the adapter was trained on"
            );
            let (place, name) = (place.to_owned(), key.clone());
            return Err(Error::Shape { place, name, expected: vec![own, width], found: t.size(), hint });
        }
    }
    Ok(())
}

/// The word embedding and the head's weight, as far as a file has them whole.
pub(crate) fn vocabulary_of(
    tensors: BTreeMap<String, Tensor>,
    outline: &Outline,
    place: &str,
) -> Result<[Option<Tensor>; 2]> {
    let tensors = plain(tensors, outline, place, &mut Vec::new())?;
    let find = |param: &str| {
        let found = tensors.iter().find(|(key, _)| param_of(key, outline).as_deref() == Some(param));
        found.map(|(_, t)| t.shallow_clone())
    };
    Ok([outline.dims.word_embedding().map(str::to_owned), outline.dims.head_weight()]
        .map(|name| find(&name?)))
}

#[cfg(test)]
mod tests {
    use crate::peft::load::keys::spelled;

    #[test]
    fn names_of_other_programs() {
        for (key, name) in [
            ("base_model.model.q.lora_A.default.weight", "base_model.model.q.lora_A.weight"),
            ("base_model.model.e.lora_embedding_A.default", "base_model.model.e.lora_embedding_A"),
            ("base_model.model._orig_mod.q.lora_A.weight", "base_model.model.q.lora_A.weight"),
            ("base_model.model.q.lora_magnitude_vector.weight", "base_model.model.q.lora_magnitude_vector"),
            (
                "base_model.model.q.lora_magnitude_vector.default.weight",
                "base_model.model.q.lora_magnitude_vector",
            ),
            ("base_model.model.default.q.lora_A.weight", "base_model.model.default.q.lora_A.weight"),
            (
                "base_model.model.c.modules_to_save.default.bias",
                "base_model.model.c.modules_to_save.default.bias",
            ),
        ] {
            assert_eq!(spelled(key), name);
        }
    }
}
