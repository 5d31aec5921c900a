//! LoRA+: B learns faster than A. Hayou et al. 2024, <https://arxiv.org/abs/2402.12354>, section 4; groups as PEFT forms
//! them (`create_loraplus_optimizer`).

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::seam::{Outline, PREFIX, SiteKind};
use crate::train::Group;
use crate::train::optimizer::not_negative;
use tch::Tensor;

/// Rates of LoRA+; the defaults are PEFT's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraPlus {
    /// Learning rate of B in multiples of A's, 1 or more.
    pub ratio: f64,
    /// Learning rate of an embedding's A and B, in multiples of A's.
    pub embedding: f64,
    /// Of all but biases and layer norms.
    pub weight_decay: f64,
}

impl LoraPlus {
    /// With B at `ratio` times the learning rate `lr`, and embeddings at 1e-6.
    pub fn new(ratio: f64, lr: f64) -> Self {
        Self { ratio, embedding: 1e-6 / lr, weight_decay: 0.0 }
    }

    /// The trainable tensors of the named adapters in four groups, some of them empty: A and what else there is,
    /// embeddings, B with decay, B without. Every vector counts as B.
    ///
    /// # Errors
    /// Rates that are not positive numbers, a weight decay that is negative.
    pub fn groups(&self, peft: &Peft, active: &[&str]) -> Result<Vec<Group>> {
        for (field, rate) in [("ratio", self.ratio), ("embedding", self.embedding)] {
            if !(rate > 0.0 && rate.is_finite()) {
                return Err(Error::config("LoRA+", field, format!("should be positive, is {rate}")));
            }
        }
        not_negative("LoRA+", "weight_decay", self.weight_decay)?;
        let group = |rate, weight_decay| Group { params: Vec::new(), rate, weight_decay };
        let mut a = group(1.0, self.weight_decay);
        let mut embedding = group(self.embedding, self.weight_decay);
        let mut b = group(self.ratio, self.weight_decay);
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
