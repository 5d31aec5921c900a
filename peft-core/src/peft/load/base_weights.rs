//! Taking the weights of the base out of a file that has them beside the adapter's own.

use crate::error::Result;
use crate::peft::Peft;
use crate::peft::load::keys::param_of;
use crate::run::Carried;
use crate::seam::{Counting, Outline, Overlay, Resolved, Twin};
use crate::warning::Warning;
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

/// What [`take`] takes.
pub(super) struct Taken {
    pub own: Carried,
    pub tensors: Vec<(String, Tensor)>,
}

/// Takes the weights out of a file's tensors that are the base's, and that the method has no copies of. Those that
/// are as the base has them are dropped, but for the embedding and the head: another base has other ones.
pub(super) fn take(
    peft: &Peft,
    method: &Resolved,
    tensors: &mut BTreeMap<String, Tensor>,
    place: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Taken> {
    let outline = peft.outline();
    let (mut own, mut taken) = (Carried::default(), Vec::new());
    let (mut same, mut other, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
    for (stored, keys) in beside(method, tensors, outline) {
        let mut keys = keys.into_iter();
        let Some((key, param)) = keys.next() else { continue };
        let dims = &outline.dims;
        let ends =
            dims.word_embedding() == Some(param.as_str()) || dims.head_weight().as_ref() == Some(&param);
        let Some(first) = tensors.get(&key) else { continue };
        let equal = is_as(first, peft.dense_param(&stored)?)?;
        if !equal && !is_wrapped_right(&key, &param, tensors, outline) {
            continue; // PEFT would pass over it: nothing reads it
        }
        for (second, _) in keys {
            let twin = Twin::new(&key, &second);
            twin.import(place, tensors)?;
            if !second.contains(ORIGINAL) {
                own.twins.push(twin);
            }
        }
        let Some(tensor) = tensors.remove(&key) else { continue };
        // Where the adapter has copies of its own, a head that is tied to the tensor may still follow the base's.
        let followers = outline.sites.iter().filter(|s| s.tied.as_ref() == Some(&stored));
        let followers = followers.map(|s| format!("{}.weight", s.name));
        let mut names = std::iter::once(stored.clone()).chain(followers);
        let seen = names.find(|name| method.overlay(name).is_none());
        match seen {
            Some(_) if equal && !ends => same.push(key),
            None if equal => {}
            None => hidden.push(key),
            Some(name) => {
                let counting = if name == stored { Counting::Replaces } else { Counting::Adds };
                if !equal {
                    other.push(key.clone());
                }
                own.copies.insert(name, Overlay { key: key.clone(), counting, saved_beside: true });
                taken.push((key, tensor));
            }
        }
    }
    for (keys, what) in [
        (same, "is the base's own weight, as the base has it, and is not kept with the adapter"),
        (other, "is another value of the base's own weight: it is in force where the adapter is active"),
        (
            hidden,
            "is another value of the base's own weight, and has no effect: the adapter has a copy in its place",
        ),
    ] {
        let Some(first) = keys.first() else { continue };
        let more = match keys.len() {
            1 => String::new(),
            n => format!("; so are {} more", n.saturating_sub(1)),
        };
        warnings.push(Warning::new(place, first, format!("{what}{more}")));
    }
    Ok(Taken { own, tensors: taken })
}

/// In the name of what PEFT keeps of the base's beside a copy (`modules_to_save`).
const ORIGINAL: &str = ".original_module.";

/// The keys of each of the base's tensors that a file has, with the parameter that each key names: an embedding and a head
/// that are tied are one tensor. The tensor's own name comes first, and what PEFT keeps beside a copy last.
fn beside(
    method: &Resolved,
    tensors: &BTreeMap<String, Tensor>,
    outline: &Outline,
) -> BTreeMap<String, Vec<(String, String)>> {
    let copies: BTreeSet<String> =
        outline.params.iter().filter_map(|p| Some(method.overlay(p)?.key)).collect();
    let mut all: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for key in tensors.keys().filter(|key| !copies.contains(*key) && !method.method.inert(key)) {
        let Some(param) = param_of(key, outline) else { continue };
        all.entry(outline.stored_name(&param).to_owned()).or_default().push((key.clone(), param));
    }
    for (stored, keys) in &mut all {
        keys.sort_by_key(|(key, param)| (key.contains(ORIGINAL), param != stored));
    }
    all
}

/// Whether a tensor has the base's values.
fn is_as(tensor: &Tensor, base: Option<Tensor>) -> Result<bool> {
    Ok(match base {
        Some(base) if base.size() == tensor.size() => {
            base.f_equal(&tensor.f_to_kind(base.kind())?.f_to(base.device())?)?
        }
        _ => false,
    })
}

/// PEFT wraps a module that it adapts: the base's own weight is one level deeper then.
fn is_wrapped_right(key: &str, param: &str, tensors: &BTreeMap<String, Tensor>, outline: &Outline) -> bool {
    let Some(module) = key.strip_suffix(param).and(key.rsplit_once('.')).map(|(module, _)| module) else {
        return true;
    };
    let inside = |k: &&String| k.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'));
    tensors.keys().filter(inside).all(|k| param_of(k, outline).is_some())
}
