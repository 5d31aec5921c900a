//! Conversion: the effect of any mergeable adapter as a LoRA adapter of a chosen rank, which every tool that knows LoRA
//! can use.
//!
//! At each site `ΔW = U S Vᵀ`, cut off after `rank` singular values: `B = U S` and `A = Vᵀ` are the closest change of
//! that rank (Eckart and Young). The share of `‖ΔW‖²` that is kept says how close it is.

pub(crate) mod assembly;
pub(crate) mod changes;
mod plain;

pub use plain::PlainLora;

use crate::check;
use crate::error::{Error, Result};
use crate::methods::Common;
use crate::peft::Peft;
use crate::peft::to_lora::assembly::{Assembly, AssemblySite};
use crate::peft::to_lora::changes::{Changes, Delta};
use crate::seam::{Kernel, LowRank, PREFIX, Svd};
use std::fmt;
use tch::Tensor;

/// What a conversion kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// Every site that has a low-rank change now, in the model's order.
    pub sites: Vec<SiteShare>,
    /// Parameters that LoRA has no form for (those of norms and of a model's own kernels, the task's head) and that are stored whole, as
    /// `modules_to_save`.
    pub whole: Vec<String>,
}

/// What a conversion kept of one site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteShare {
    pub site: String,
    /// `‖ΔW‖²`, before.
    pub energy: f64,
    /// The share of it that is kept, in [0, 1].
    pub kept: f64,
}

impl Conversion {
    /// The share of all sites' energy that is kept, in [0, 1].
    pub fn kept(&self) -> f64 {
        let all: f64 = self.sites.iter().map(|s| s.energy).sum();
        let kept: f64 = self.sites.iter().map(|s| s.energy * s.kept).sum();
        if all > 0.0 { kept / all } else { 1.0 }
    }
}

impl fmt::Display for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worst = self.sites.iter().min_by(|a, b| a.kept.total_cmp(&b.kept));
        write!(f, "{:.2} % of the change kept at {} sites", 100.0 * self.kept(), self.sites.len())?;
        if let Some(worst) = worst {
            write!(f, ", {:.2} % at the worst (`{}`)", 100.0 * worst.kept, worst.site)?;
        }
        if !self.whole.is_empty() {
            write!(f, "; {} parameters stored whole", self.whole.len())?;
        }
        Ok(())
    }
}

impl Peft {
    /// Adds the adapter `new`: a LoRA of rank `rank` that changes the weights as `name` does, as closely as the rank
    /// allows. Biases are kept whole (`bias: "lora_only"`), and so are norms, layers with a kernel of the model's own, and
    /// what `name` trains beside its method (`modules_to_save`).
    ///
    /// ```
    /// # use peft_core::Peft;
    /// # use peft_core::methods::LoraConfig;
    /// # use peft_core::models::TinyConfig;
    /// # fn main() -> peft_core::Result<()> {
    /// # let config = TinyConfig::default();
    /// # let mut peft = Peft::new(config.init(tch::Device::Cpu)?, config)?;
    /// # peft.add("wide", LoraConfig::new(16).targets(["ff.0"]))?;
    /// let conversion = peft.to_lora("wide", "narrow", 4)?;
    /// println!("{conversion}"); // 87.31 % of the change kept at 4 sites, ..
    /// assert!(conversion.sites.iter().all(|s| s.kept <= 1.0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotMergeable`] and [`Error::Unsupported`], naming the site, for what is not a change of weights; a rank
    /// that is not positive; names that are unknown or taken.
    pub fn to_lora(&mut self, name: &str, new: &str, rank: i64) -> Result<Conversion> {
        check::positive("to_lora", "rank", rank)?;
        self.check_new(new)?;
        let _guard = tch::no_grad_guard();
        let changes = Changes::read(self, name, true)?;
        let heads = self.heads(&changes)?;
        let modules = changes.modules().into_iter().collect();
        let mut lora = Assembly { rank, modules, ..Assembly::default() };
        lora.values.extend(changes.copies.iter().map(|(name, t)| (name.clone(), t.shallow_clone())));
        let (mut shares, mut whole) = (Vec::new(), Vec::new());
        // A bias of the layer itself takes the change; where there is none, LoRA brings one.
        lora.biases = changes.layers.iter().all(|l| l.bias.is_none() || l.params.len() > 1);
        for layer in &changes.layers {
            let values = std::iter::once(&layer.values.weight).chain(&layer.values.bias);
            let values = layer.params.iter().cloned().zip(values.map(Tensor::shallow_clone));
            if !layer.kernel.has_matrix() || layer.params.iter().any(|p| heads.overlay(PREFIX, p).is_some()) {
                lora.values.extend(values);
                lora.modules.insert(layer.site.clone());
                whole.extend(layer.params.iter().cloned());
                continue;
            }
            let svd = match &layer.weight {
                Delta::LowRank(change) => Svd::of_product(change)?,
                Delta::Dense(delta) => Svd::of(delta)?,
            };
            let (change, kept) = svd.truncated(rank)?;
            shares.push(SiteShare { site: layer.site.clone(), energy: svd.energy()?, kept });
            let bias = layer.bias.as_ref().filter(|_| !lora.biases).map(Tensor::shallow_clone);
            lora.values.extend(values.skip(1));
            let (name, embedding) = (layer.site.clone(), layer.kernel == Kernel::Embedding);
            lora.sites.push(AssemblySite { name, embedding, change: LowRank { bias, ..change } });
        }
        if lora.sites.is_empty() {
            let why =
                format!("`{name}` changes no linear layer and no embedding, which is what LoRA can hold");
            let site = changes.layers.first().map(|l| l.site.clone()).unwrap_or_default();
            return Err(Error::Unsupported { method: "LoRA", site, why });
        }
        lora.biases &= changes.layers.iter().any(|l| l.bias.is_some());
        self.add_assembly(new, &lora, &[changes])?;
        self.take_classes(new, &[name])?;
        Ok(Conversion { sites: shares, whole })
    }

    /// What is trained whole for the adapter's task.
    fn heads(&self, changes: &Changes) -> Result<Common> {
        let task = changes.config.get("task_type").cloned().unwrap_or_default();
        let mut heads =
            Common { task_type: serde_json::from_value(task).unwrap_or_default(), ..Common::default() };
        heads.resolve("to_lora", self.outline())?;
        Ok(heads)
    }
}
