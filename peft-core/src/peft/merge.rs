//! Merging: the adapters folded into the base, which gives an ordinary model.
//!
//! `W' = reweightₙ(… reweight₁(W))`, at every site. The chain is computed in f32, whatever the base's dtype, and its
//! result rounds once. PEFT rounds a bf16 weight up to twice an adapter (`safe_merge`), so a few last bits differ.
//!
//! A weight in 4 bits is dequantised first. What becomes of `W'` is [`Quantised`]: it stays dense, which is exact, or it
//! is quantised again, which is lossy.

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::quant::{Nf4, Requantised};
use crate::run::{Active, Copied, Origin, Rewrite};
use crate::seam::{Base, Layer, Params, Weights, is_finite};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use tch::Tensor;

/// How adapters are folded into the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeOptions {
    /// Refuses weights that are NaN or infinite, naming the site and the adapter; PEFT's `safe_merge`, on by default.
    pub safe: bool,
    /// What becomes of 4-bit weights that an adapter changes.
    pub quantised: Quantised,
}

/// What becomes of 4-bit weights that an adapter changes, once they are dequantised and the change is added. Those that none
/// changes stay as they are, in 4 bits; a copy that was trained in a weight's place (`modules_to_save`) is dense anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quantised {
    /// They are dense afterwards: the merged model computes what the adapted one does, and takes more memory.
    #[default]
    Dense,
    /// They are quantised again, as in PEFT. That is lossy: the merged model is not quite the adapted one. How far it is
    /// off is in [`Merged::requantised`], and [`Merged`] says it in a line.
    Requantise,
}

/// A base with adapters folded in. It is displayed as a line about what that cost.
#[derive(Debug)]
pub struct Merged {
    /// The merged model, without adapters.
    pub peft: Peft,
    /// The weights that were quantised again, and what that cost.
    pub requantised: Vec<Requantised>,
}

impl fmt::Display for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.requantised;
        let Some(worst) = all.iter().max_by(|a, b| a.error.total_cmp(&b.error)) else {
            return f.write_str("exact: no weight was quantised again");
        };
        let drowned = all.iter().filter(|r| r.of_change > 1.0).count();
        write!(f, "lossy: {} weights were quantised again, worst error ", all.len())?;
        write!(
            f,
            "{:.2} % (`{}`); it exceeds the change itself at {drowned}",
            100.0 * worst.error,
            worst.name
        )
    }
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self { safe: true, quantised: Quantised::Dense }
    }
}

impl Peft {
    /// The base with the named adapters folded in: an ordinary model of the same kind. A head that is tied to the
    /// word embedding gets a weight of its own when the two differ afterwards, and the configuration says so.
    ///
    /// Weights in 4 bits that an adapter changes are dense afterwards, in the dtype that they had before they were
    /// quantised, so nothing is lost; the others stay in 4 bits. [`Peft::merged_with`] can quantise them again, which is
    /// lossy.
    ///
    /// # Errors
    /// [`Error::NotMergeable`] when one of them is not a map on weights, [`Error::NotFinite`] when one of them breaks
    /// the weights.
    pub fn merged(&self, active: &[&str]) -> Result<Self> {
        Ok(self.merged_with(active, &MergeOptions::default())?.peft)
    }

    /// As [`Peft::merged`], with options. Over weights in 4 bits, [`Quantised::Requantise`] keeps the model as small as it
    /// was, and is lossy: the result says how much.
    ///
    /// ```
    /// # use peft_core::Peft;
    /// # use peft_core::methods::LoraConfig;
    /// # use peft_core::models::TinyConfig;
    /// # use peft_core::quant::Nf4Config;
    /// use peft_core::{MergeOptions, Quantised};
    /// # fn main() -> peft_core::Result<()> {
    /// # let config = TinyConfig::default();
    /// # let base = Peft::new(config.init(tch::Device::Cpu)?, config)?;
    /// # let mut peft = base.quantised(&Nf4Config::default())?;
    /// # let start = peft_core::methods::InitLora::Flag(false);
    /// # peft.add("mine", LoraConfig { init_lora_weights: start, ..LoraConfig::new(8).targets(["ff.0"]) })?;
    /// let options = MergeOptions { quantised: Quantised::Requantise, ..MergeOptions::default() };
    /// let merged = peft.merged_with(&["mine"], &options)?;
    /// assert!(merged.to_string().starts_with("lossy: 2 weights were quantised again, worst error "));
    /// let model = merged.peft.view(&[])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Peft::merged`].
    pub fn merged_with(&self, active: &[&str], options: &MergeOptions) -> Result<Merged> {
        let classes = self.classes(active)?.to_vec();
        let active = self.active(active)?;
        let fold = Fold { options, folded: RefCell::default(), packed: RefCell::default() };
        let (_, tied) = self.rewritten(active, &fold)?;
        let mut folded = fold.folded.into_inner();
        let mut untied = None;
        for (name, other) in tied {
            let other = folded.get(&other).map(Tensor::shallow_clone).or_else(|| self.base().find(&other));
            match (folded.get(&name), other) {
                (Some(own), Some(other)) if !own.f_equal(&other)? => untied = Some(name),
                _ => drop(folded.remove(&name)),
            }
        }
        let mut packed = self.base().nf4s();
        packed.retain(|name, _| !folded.contains_key(name));
        let mut requantised = Vec::new();
        for (weight, report) in fold.packed.into_inner() {
            packed.insert(report.name.clone(), weight);
            requantised.push(report);
        }
        let mut tensors = self.base().tensors();
        tensors.append(&mut folded);
        let params = Params::from_copies("the merged model", self.base().device(), tensors)?;
        packed.iter().try_for_each(|(name, w)| params.insert_nf4(name, w))?;
        let peft = match untied.map(|name| (self.architecture().untied(), name)) {
            None => self.over(params)?,
            Some((Some(architecture), _)) => self.remade(params, architecture.into())?,
            Some((None, site)) => {
                let why = "it is tied to another parameter, differs from that afterwards, and the model has no form with \
                           two of them (`Architecture::untied`)";
                return Err(Error::Unsupported { method: "merging", site, why: why.to_owned() });
            }
        };
        let peft = if classes == peft.outline().dims.classes { peft } else { peft.named(&classes)? };
        Ok(Merged { peft, requantised })
    }
}

/// Records the folded value of every parameter that an adapter changes.
#[derive(Debug)]
struct Fold<'a> {
    options: &'a MergeOptions,
    folded: RefCell<BTreeMap<String, Tensor>>,
    /// The weights that are quantised again.
    packed: RefCell<Vec<(Nf4, Requantised)>>,
}

impl Fold<'_> {
    fn record(&self, name: &str, value: Tensor) {
        self.folded.borrow_mut().insert(name.to_owned(), value);
    }

    /// Checks what is there after the adapter `by`; `before` was there without any.
    fn check(&self, site: &str, by: &Active<'_>, after: &[&Tensor], before: &[&Tensor]) -> Result<()> {
        if !self.options.safe || finite(after)? {
            return Ok(());
        }
        let whose = if finite(before)? { format!("adapter `{}`", by.name) } else { "the base itself".into() };
        Err(Error::NotFinite { whose, site: site.to_owned() })
    }
}

impl Rewrite for Fold<'_> {
    fn layer(&self, layer: &mut Layer, origin: &Origin<'_>) -> Result<()> {
        if layer.adapters.is_empty() {
            return Ok(());
        }
        // A layer that the model has in several places is folded once.
        if self.packed.borrow().iter().any(|(_, there)| there.name == origin.weight) {
            return Ok(());
        }
        let _guard = tch::no_grad_guard();
        let base = layer.base.dense()?;
        let mut owners = origin.owners.iter();
        let folded = layer.folded(|after| match owners.next() {
            Some(by) => self.check(&layer.name, by, &after.tensors(), &base.tensors()),
            None => Ok(()),
        })?;
        if folded.bias.is_some() != origin.bias.is_some() {
            let why = "the adapter adds a bias to a layer that has none, or takes one away".to_owned();
            return Err(Error::Unsupported { method: "merging", site: layer.name.clone(), why });
        }
        match &layer.base {
            // A weight that no adapter changed would not survive another round: its scales are rounded.
            Base::Nf4 { .. } if base.weight.f_equal(&folded.weight)? => {}
            Base::Nf4 { weight, .. } if self.options.quantised == Quantised::Requantise => {
                let again = Requantised::new(&origin.weight, weight, &base.weight, &folded.weight)?;
                self.packed.borrow_mut().push(again);
            }
            _ => {
                let weight =
                    if origin.transposed { folded.weight.f_tr()?.f_contiguous()? } else { folded.weight };
                self.record(&origin.weight, weight.f_detach()?);
            }
        }
        if let (Some(name), Some(bias)) = (&origin.bias, folded.bias) {
            self.record(name, bias.f_detach()?);
        }
        Ok(())
    }

    fn param(&self, name: &str, [_, value]: [&Tensor; 2], (by, _): Copied<'_>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.check(name, by, &[value], &[])?;
        self.record(name, value.f_detach()?);
        Ok(())
    }

    fn tied(&self, name: &str, [_, value]: [&Tensor; 2], _: Option<Copied<'_>>) -> Result<()> {
        self.record(name, value.f_detach()?);
        Ok(())
    }

    fn refuse(&self, site: &str, method: &'static str) -> Error {
        Error::NotMergeable { method, site: site.to_owned() }
    }
}

fn finite(tensors: &[&Tensor]) -> Result<bool> {
    tensors.iter().try_fold(true, |all, t| Ok(all && is_finite(t)?))
}

impl Weights {
    fn tensors(&self) -> Vec<&Tensor> {
        std::iter::once(&self.weight).chain(&self.bias).collect()
    }
}
