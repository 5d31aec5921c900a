//! LoRA's `bias`: the base's own biases, trained as well.

use crate::error::{Error, Result};
use crate::methods::lora::names::NAME;
use crate::seam::PREFIX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::Tensor;

/// Which biases of the base are trained. They are copies over the base's, which stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// No one.
    #[default]
    None,
    /// Every one: BitFit (Zaken et al. 2021, <https://arxiv.org/abs/2106.10199>) beside LoRA.
    All,
    /// Those of the adapted layers.
    LoraOnly,
}

impl Bias {
    /// The stored name of bias `param`, if it is trained. PEFT wraps adapted layers, so theirs is one level deeper.
    pub(super) fn key(self, param: &str, adapted: impl Fn(&str) -> bool) -> Option<String> {
        let module = param.strip_suffix("bias")?;
        let site = module.strip_suffix(['.', '_'])?;
        match (self, adapted(site)) {
            (Bias::None, _) | (Bias::LoraOnly, false) => None,
            (_, true) if module.ends_with('.') => Some(format!("{PREFIX}{site}.base_layer.bias")),
            _ => Some(format!("{PREFIX}{param}")),
        }
    }
}

/// With `bias: "all"`, PEFT writes a bias of `modules_to_save` three times: as it is (`classifier.bias`), under the
/// name of the copy in its module tree, and the base's untouched one. This is the infix of the last.
const ORIGINAL: &str = ".original_module.";

/// Whether this is a bias of the base that PEFT wrote by accident. It is kept, so that the file is written as it was
/// read, and used for nothing.
pub(super) fn is_original(name: &str) -> bool {
    name.contains(ORIGINAL)
}

/// Takes the second copies of biases out of a file's tensors.
///
/// # Errors
/// A second copy that differs from the first: there is no telling which one is meant.
pub(super) fn drop_copies(place: &str, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
    for original in tensors.keys().filter(|n| is_original(n)).cloned().collect::<Vec<_>>() {
        let (live, copy) = copies(&original);
        match (tensors.remove(&copy), tensors.get(&live)) {
            (Some(copied), Some(first)) if !first.f_equal(&copied)? => {
                let message = format!("{NAME}: {place}: `{copy}` and `{live}` should be equal");
                return Err(Error::Input(message));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Puts them back.
pub(super) fn restore_copies(tensors: &mut BTreeMap<String, Tensor>) {
    for original in tensors.keys().filter(|n| is_original(n)).cloned().collect::<Vec<_>>() {
        let (live, copy) = copies(&original);
        if let Some(first) = tensors.get(&live).map(Tensor::shallow_clone) {
            tensors.insert(copy, first);
        }
    }
}

/// Names of the first and the second copy. PEFT takes the adapter's name out of a name's last two parts alone.
fn copies(original: &str) -> (String, String) {
    let leaf = original.rsplit(ORIGINAL).next().unwrap_or_default();
    let infix = if leaf.contains('.') { ".modules_to_save.default." } else { ".modules_to_save." };
    (original.replace(ORIGINAL, "."), original.replace(ORIGINAL, infix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_biases() {
        let key = |bias: Bias, param: &str| bias.key(param, |site| site.ends_with("query"));
        let stored = |name: &str| Some(format!("{PREFIX}{name}"));
        assert_eq!(key(Bias::All, "l.0.query.bias"), stored("l.0.query.base_layer.bias"));
        assert_eq!(key(Bias::All, "l.0.key.bias"), stored("l.0.key.bias"));
        assert_eq!(key(Bias::All, "l.0.key.weight"), None);
        assert_eq!(key(Bias::LoraOnly, "l.0.query.bias"), stored("l.0.query.base_layer.bias"));
        assert_eq!(key(Bias::LoraOnly, "l.0.key.bias"), None);
        assert_eq!(key(Bias::None, "l.0.query.bias"), None);
        let (live, copy) = copies("p.pooler.original_module.dense.bias");
        assert_eq!((&*live, &*copy), ("p.pooler.dense.bias", "p.pooler.modules_to_save.default.dense.bias"));
    }
}
