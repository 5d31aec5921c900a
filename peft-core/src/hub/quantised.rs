//! Hub model directories with weights in 4 bits: quantising while reading, `quantization_config` in `config.json`.

use crate::error::{Error, Result};
use crate::io::tensors;
use crate::models::hub_model::HubModel;
use crate::peft::Peft;
use crate::peft::quantised::linears;
use crate::quant;
use crate::quant::{Nf4, Nf4Config};
use crate::seam::{Params, SiteKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// What is quantised while it is read: the weights of linear layers, by name, and whether they are stored as
/// `[in, out]`.
#[derive(Debug, Default)]
pub(super) struct Plan {
    linears: BTreeMap<String, bool>,
    how: Nf4Config,
}

impl Plan {
    /// Runs the model's constructor over the files' names and shapes (and the fresh `head`), which tells what is a
    /// linear layer before anything large is read.
    pub fn new(
        how: &Nf4Config,
        model: &Arc<dyn HubModel>,
        (file, paths): (&Path, &[PathBuf]),
        head: &[(String, Tensor)],
    ) -> Result<Self> {
        let mut phantoms = BTreeMap::new();
        for path in paths {
            let renamed =
                tensors::phantoms(path)?.into_iter().map(|(name, t)| Some((model.rename(&name)?, t)));
            phantoms.extend(renamed.flatten());
        }
        for (name, t) in head {
            phantoms.insert(name.clone(), t.shallow_clone());
        }
        // A tied head that is stored a second time is compared when it is read.
        if let Some([head, _]) = model.tied() {
            phantoms.remove(head);
        }
        let names: Vec<String> = phantoms.keys().cloned().collect();
        let peft = Peft::of(
            Params::from_tensors(file.display().to_string(), Device::Cpu, phantoms)?,
            model.clone(),
        )?;
        let linears = linears(how, peft.outline(), |name| names.iter().any(|n| n == name))?;
        let linears = linears.into_iter().map(|site| (site.weight(), site.transposed)).collect();
        Ok(Self { linears, how: how.clone() })
    }

    /// The tensor in 4 bits, if it is one of those; cast to `kind` before, where that is given.
    pub fn quantise(&self, name: &str, tensor: &Tensor, kind: Option<Kind>) -> Result<Option<Nf4>> {
        let Some(transposed) = self.linears.get(name) else { return Ok(None) };
        let w = tensor.f_to_kind(kind.unwrap_or(tensor.kind()))?;
        Nf4::quantise(name, &if *transposed { w.f_tr()? } else { w }, &self.how).map(Some)
    }
}

/// Takes the weights in 4 bits out of the tensors of `file`; the directory's `config.json` must say the same.
pub(super) fn take(
    (json, place): (&Value, &str),
    file: &str,
    tensors: &mut BTreeMap<String, Tensor>,
    kind: Option<Kind>,
) -> Result<BTreeMap<String, Nf4>> {
    let stored = json.get(quant::FIELD).filter(|q| !q.is_null());
    let stored = stored.map(|q| Nf4Config::from_json(q, place)).transpose()?;
    let mut packed = quant::file::take(file, tensors, stored.clone().unwrap_or_default().compute)?;
    if let Some(kind) = kind {
        packed.values_mut().for_each(|w| *w = w.of_kind(kind));
    }
    match (stored, packed.keys().next()) {
        (None, Some(name)) => {
            let message = format!("is missing, and `{name}` of {file} is in 4 bits");
            Err(Error::config(place, quant::FIELD, message))
        }
        (Some(_), None) => {
            let message = format!("says that weights are in 4 bits, and none of {file} is");
            Err(Error::config(place, quant::FIELD, message))
        }
        _ => Ok(packed),
    }
}

/// Says in `config.json` which weights are in 4 bits.
pub(super) fn describe(peft: &Peft, json: &mut Value) {
    let Some(fields) = json.as_object_mut() else { return };
    let packed = peft.base().nf4s();
    let Some(first) = packed.values().next() else {
        fields.remove(quant::FIELD);
        return;
    };
    let linears = peft.outline().sites.iter().filter(|s| s.kind == SiteKind::Linear);
    let dense: Vec<String> =
        linears.filter(|s| !packed.contains_key(&s.weight())).map(|s| s.name.clone()).collect();
    // The head of a language model is what transformers skips by itself.
    let dims = &peft.outline().dims;
    let usual = dims.causal() && dense.iter().all(|name| dims.is_head(name));
    fields.insert(quant::FIELD.into(), first.config().to_json((!usual).then_some(&dense)));
}
