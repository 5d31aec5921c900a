//! Hashes of a base's tensors.

use crate::error::Result;
use crate::io;
use crate::peft::provenance::{Base, FORMAT, Provenance, TensorHash};
use crate::peft::{Adapted, Peft};
use crate::quant::{self, Nf4};
use crate::run::Scope;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

impl Peft {
    /// What base an adapter is for: this one. Its tensors where the adapter is are hashed, at about a gigabyte a second.
    ///
    /// # Errors
    /// A name that is unknown.
    pub fn provenance(&self, name: &str) -> Result<Provenance> {
        let adapted = self.adapter(name)?;
        let tensors = self.places(adapted)?.into_iter().map(|param| {
            let hash = self.hash_of(&param)?;
            Ok(hash.map(|hash| (param, hash)))
        });
        let tensors: BTreeMap<_, _> = tensors.filter_map(Result::transpose).collect::<Result<_>>()?;
        let file = adapted.file()?;
        let base = file.as_ref().and_then(|f| f.get("base_model_name_or_path")).and_then(Value::as_str);
        let base = Base {
            name: base.unwrap_or_default().to_owned(),
            model_type: self.outline().dims.model_type.clone(),
            fingerprint: fingerprint(&tensors),
            tensors,
        };
        let versions = BTreeMap::from([("peft-core".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        Ok(Provenance { format: FORMAT, versions, base, tokenizer: None, recipe: Value::Null })
    }

    /// The stored names of the parameters that an adapter stands over.
    fn places(&self, adapted: &Adapted) -> Result<BTreeSet<String>> {
        let run = self.run(vec![adapted.active("")]);
        self.architecture().build(&Scope::root(&run))?;
        let places: BTreeSet<String> =
            run.active.iter().flat_map(|a| a.places.borrow().iter().cloned().collect::<Vec<_>>()).collect();
        let active = adapted.active("");
        let own = |param: &&String| active.overlay(param).is_none();
        let params: Vec<&String> = self.outline().params.iter().filter(own).collect();
        let stored = |param: &str| self.outline().stored_name(param).to_owned();
        let within = |param: &str| {
            let above = param.match_indices('.').filter_map(|(at, _)| param.get(..at));
            places.contains(param) || above.into_iter().any(|site| places.contains(site))
        };
        let mut found: BTreeSet<String> = params.iter().map(|p| stored(p)).filter(|p| within(p)).collect();
        if found.is_empty() {
            let words = self.outline().dims.word_embedding();
            found.extend(params.iter().filter(|p| Some(p.as_str()) == words.as_deref()).map(|p| stored(p)));
        }
        if found.is_empty() {
            found.extend(params.iter().map(|p| stored(p)));
        }
        Ok(found)
    }

    /// What is known of a tensor of the base; `None` where there is none of that name.
    pub(super) fn hash_of(&self, name: &str) -> Result<Option<TensorHash>> {
        if let Some(packed) = self.base().find_nf4(name) {
            return self.hash_of_nf4(name, &packed).map(Some);
        }
        let Some(tensor) = self.base().find(name) else { return Ok(None) };
        let also: &[Kind] = if tensor.kind() == Kind::Float { &[Kind::BFloat16, Kind::Half] } else { &[] };
        let rounded = also.iter().map(|&kind| Ok((dtype(kind), hash_as(&tensor, kind)?)));
        Ok(Some(TensorHash {
            dtype: dtype(tensor.kind()),
            shape: tensor.size(),
            sha256: hash_as(&tensor, tensor.kind())?,
            rounded: rounded.collect::<Result<_>>()?,
        }))
    }

    pub(super) fn hash_of_nf4(&self, name: &str, packed: &Nf4) -> Result<TensorHash> {
        let mut parts = BTreeMap::new();
        quant::file::put(name, packed, &mut parts)?;
        let mut hash = Sha256::new();
        // One of the parts says the dtype of the dense weight as well, which may be cast without touching the codes.
        for (_, part) in parts.iter().filter(|(name, _)| !name.contains("quant_state")) {
            hash.update(io::tensors::bytes(part)?);
        }
        let dtype = if packed.config().double_quant { NF4_DOUBLE } else { NF4 };
        let mut shape = packed.size().to_vec();
        if self.is_transposed(name) {
            shape.reverse();
        }
        Ok(TensorHash { dtype: dtype.to_owned(), shape, sha256: short(hash), rounded: BTreeMap::new() })
    }

    /// Whether a weight is stored as `[in, out]`, and in 4 bits the other way round.
    pub(super) fn is_transposed(&self, name: &str) -> bool {
        self.outline().sites.iter().any(|s| s.transposed && s.weight() == name)
    }
}

pub(super) const NF4: &str = "NF4";
pub(super) const NF4_DOUBLE: &str = "NF4_DOUBLE";

/// What safetensors call a dtype, or libtorch where they have none.
pub(super) fn dtype(kind: Kind) -> String {
    io::tensors::dtype(kind).map_or_else(|| format!("{kind:?}"), |dtype| format!("{dtype:?}"))
}

pub(super) fn kind(dtype_name: &str) -> Option<Kind> {
    [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double].into_iter().find(|k| dtype(*k) == dtype_name)
}

pub(super) fn hash_as(tensor: &Tensor, kind: Kind) -> Result<String> {
    let bytes = io::tensors::bytes(&if tensor.kind() == kind {
        tensor.shallow_clone()
    } else {
        tensor.f_to_kind(kind)?
    })?;
    Ok(short(Sha256::new().chain_update(bytes)))
}

pub(super) fn fingerprint(tensors: &BTreeMap<String, TensorHash>) -> String {
    let mut hash = Sha256::new();
    for (name, t) in tensors {
        hash.update(format!("{name}\n{} {:?} {}\n", t.dtype, t.shape, t.sha256));
    }
    hex(&hash.finalize())
}

fn short(hash: Sha256) -> String {
    let mut digits = hex(&hash.finalize());
    digits.truncate(16);
    digits
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
