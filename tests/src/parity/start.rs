//! Adapters whose start is taken from the base, of which it leaves a residual (PiSSA, OLoRA).

use super::{Tensors, most, nan_max};
use anyhow::{Context, Result};
use peft_core::io;
use peft_core::methods::from_json;
use peft_core::{Params, Peft};
use std::path::Path;
use tch::{Device, Tensor};

/// What a start that was taken from the base left of it, by the names of the weights.
pub(super) fn residual(g: &Tensors) -> Tensors {
    let named = g.iter().filter_map(|(k, t)| Some((k.strip_prefix("base_residual.")?.to_owned(), t.copy())));
    named.collect()
}

/// The worst error of what the start leaves of the base, relative to the base's largest value: the merged weights at
/// B = 0.
pub(super) fn error(peft: &Peft, expected: &Tensors) -> Result<f64> {
    let params = peft.params("golden")?;
    let up: Tensors = params.tensors().into_iter().filter(|(n, _)| n.ends_with("lora_B.weight")).collect();
    let kept: Tensors = up.into_iter().map(|(n, t)| (n, t.detach().copy())).collect();
    kept.iter().try_for_each(|(n, t)| params.assign(n, &t.zeros_like()))?;
    let merged = peft.merged(&["golden"])?;
    kept.iter().try_for_each(|(n, t)| params.assign(n, t))?;
    let error = |name: &String, t: &Tensor| -> Result<f64> {
        let find = |params: &Params| params.find(name).with_context(|| format!("no weight `{name}`"));
        Ok(most(&(find(merged.base())? - t)) / most(&find(peft.base())?))
    };
    let errors = expected.iter().map(|(name, t)| error(name, t));
    Ok(errors.collect::<Result<Vec<_>>>()?.into_iter().fold(0.0, nan_max))
}

/// An adapter whose start was taken from the base may be this far from its golden. Beyond, see [`over_residual`].
pub(super) const FACTORISED: f64 = 1e-5;

/// The adapter as plain LoRA over what its start left of the base in PEFT's hands. A factorisation in f32 depends on the
/// processor: on another one than the golden's, PEFT itself comes as close to it as `start` says, and layers multiply
/// that.
pub(super) fn over_residual(peft: &Peft, dir: &Path, residual: Tensors) -> Result<Peft> {
    let mut tensors = peft.base().tensors();
    tensors.extend(residual);
    let base = tensors.into_iter().map(|(n, t)| (n, t.detach().copy()));
    let mut over = peft.over(Params::from_tensors("the residual", Device::Cpu, base)?)?;
    let mut json = io::read_json(dir.join("adapter_config.json"))?;
    json["init_lora_weights"] = true.into();
    let tensors = io::tensors::read(dir.join("adapter_model.safetensors"))?;
    over.add_with("golden", from_json(json, "the golden")?, tensors)?;
    Ok(over)
}
