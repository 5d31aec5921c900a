//! LoRA+: B learns faster than A. Hayou et al. 2024, <https://arxiv.org/abs/2402.12354>, section 4; groups as PEFT forms
//! them (`create_loraplus_optimizer`).

use crate::check;
use crate::error::Result;
use crate::peft::Peft;
use crate::seam::{Outline, PREFIX, SiteKind};
use crate::train::{AdamConfig, Group};
use tch::Tensor;

/// LoRA+: B learns `ratio` times as fast as A, whose learning rate is the trainer's. `LoraPlus::new(16.0)` is PEFT's
/// `create_loraplus_optimizer` over AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraPlus {
    /// Learning rate of B in multiples of A's, 1 or more.
    pub ratio: f64,
    /// Learning rate of an embedding's A and B, as it is and not as a multiple.
    pub embedding_lr: f64,
    /// The constants of AdamW. Its weight decay is that of all but biases and layer norms.
    pub adam: AdamConfig,
}

impl LoraPlus {
    /// LoRA+ with B at `ratio` times A's learning rate, embeddings at 10⁻⁶, and no weight decay.
    pub fn new(ratio: f64) -> Self {
        Self { ratio, embedding_lr: 1e-6, adam: AdamConfig { weight_decay: 0.0, ..AdamConfig::default() } }
    }

    /// The trainable tensors of the named adapters in four groups, some of them empty: A and what else there is,
    /// embeddings, B with decay, B without. Every vector counts as B. The rates are multiples of `lr`, A's learning rate.
    ///
    /// # Errors
    /// Rates that are not positive numbers, a weight decay that is negative.
    pub fn groups(&self, peft: &Peft, active: &[&str], lr: f64) -> Result<Vec<Group>> {
        for (field, rate) in [("ratio", self.ratio), ("embedding_lr", self.embedding_lr)] {
            check::above_zero("LoRA+", field, rate)?;
        }
        let weight_decay = self.adam.weight_decay;
        check::not_negative("LoRA+", "weight_decay", weight_decay)?;
        let group = |rate, weight_decay| Group { params: Vec::new(), rate, weight_decay };
        let mut a = group(1.0, weight_decay);
        // A trainer at rate 0 changes nothing, these neither.
        let mut embedding = group(if lr > 0.0 { self.embedding_lr / lr } else { 0.0 }, weight_decay);
        let mut b = group(self.ratio, weight_decay);
        let mut b_plain = group(self.ratio, 0.0);
        for (name, p) in peft.trainable(active)? {
            let group = if name.contains("lora_embedding_") {
                &mut embedding
            } else if !is_b(&name, &p) {
                &mut a
            } else if name.contains("bias") || in_layer_norm(&name, peft.outline()) {
                &mut b_plain
            } else {
                &mut b
            };
            group.params.push((name, p));
        }
        Ok(vec![a, embedding, b, b_plain])
    }
}

fn is_b(name: &str, p: &Tensor) -> bool {
    name.contains("lora_B") || p.dim() == 1
}

/// Whether this is a parameter of a layer norm: of a norm with a bias, that is. An RMS norm decays.
fn in_layer_norm(name: &str, outline: &Outline) -> bool {
    let site = name.strip_prefix(PREFIX).and_then(|n| n.rsplit_once('.')).map(|(site, _)| site);
    site.is_some_and(|site| {
        let bias = format!("{site}.bias");
        outline.sites.iter().any(|s| s.name == site && s.kind == SiteKind::Norm)
            && outline.params.contains(&bias)
    })
}
