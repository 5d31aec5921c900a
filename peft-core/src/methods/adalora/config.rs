//! AdaLoRA's configuration.

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, whole};
use crate::target::{Layers, Patterns, Targets, no_target};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const NAME: &str = "AdaLoRA";

/// Configuration of AdaLoRA; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | A | `[init_r, in]` | `<site>.lora_A` | N(0, 0.02²); N(0, 1) for `false` |
/// | E | `[init_r, 1]` | `<site>.lora_E` | 0; N(0, 1) for `false` |
/// | B | `[out, init_r]` | `<site>.lora_B` | N(0, 0.02²); N(0, 1) for `false` |
///
/// A file has the rows and columns alone that are kept, and `rank_pattern` says which. An adapter that was made with a
/// `rank_pattern`, from such a file above all, keeps its ranks: training it further prunes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaLoraConfig {
    /// Rank that is left at a layer on average.
    pub target_r: i64,
    /// Rank of every layer at the start.
    pub init_r: i64,
    /// Steps before the pruning starts.
    pub tinit: u64,
    /// Steps after it has ended.
    pub tfinal: u64,
    /// Steps from one pruning to the next.
    #[serde(rename = "deltaT")]
    pub delta_t: u64,
    /// Decay of the average importance.
    pub beta1: f64,
    /// Decay of its average uncertainty.
    pub beta2: f64,
    /// Weight of the penalty that keeps A and B orthogonal.
    pub orth_reg_weight: f64,
    /// Steps of the whole training; it has to be given.
    pub total_step: Option<u64>,
    /// By `<site>.lora_E`, which of the `init_r` singular values are kept.
    pub rank_pattern: Option<BTreeMap<String, Vec<bool>>>,
    /// Numerator of the scale, which is `lora_alpha/init_r`.
    #[serde(serialize_with = "whole")]
    pub lora_alpha: f64,
    /// Probability that an input of A is dropped in training.
    pub lora_dropout: f64,
    /// Whether E starts as 0, and A and B small: the adapter changes nothing then.
    pub init_lora_weights: bool,
    /// Linear layers to adapt.
    #[serde(flatten)]
    pub targets: Targets,
    /// Only some layers of the model.
    #[serde(flatten)]
    pub layers: Layers,
    /// Whether weights are stored as `[in, out]`: what the model says, whatever is set here.
    pub fan_in_fan_out: bool,
    /// LoRA's rank: without effect here, as in PEFT.
    pub r: i64,
    /// LoRA's other scale: without effect here, as in PEFT.
    pub use_rslora: bool,
    /// LoRA's scales by site: without effect here, as in PEFT.
    pub alpha_pattern: Patterns,
    /// A copy of the word embedding (`modules_to_save`) is that of a head that is tied to it as well. Without it they part.
    pub ensure_weight_tying: bool,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

impl Default for AdaLoraConfig {
    fn default() -> Self {
        Self {
            target_r: 8,
            init_r: 12,
            tinit: 0,
            tfinal: 0,
            delta_t: 1,
            beta1: 0.85,
            beta2: 0.85,
            orth_reg_weight: 0.5,
            total_step: None,
            rank_pattern: None,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            init_lora_weights: true,
            targets: Targets::default(),
            layers: Layers::default(),
            fan_in_fan_out: false,
            r: 8,
            use_rslora: false,
            alpha_pattern: Patterns::default(),
            ensure_weight_tying: false,
            common: Common::default(),
        }
    }
}

impl AdaLoraConfig {
    /// With that rank left on average after a training of so many steps, from one and a half times as much at the start, as
    /// in the paper; everything else has its default.
    pub fn new(target_r: i64, total_step: u64) -> Self {
        let half = target_r.checked_div(2).unwrap_or_default();
        let init_r = target_r.saturating_add(half);
        Self { target_r, init_r, total_step: Some(total_step), ..Self::default() }
    }

    /// Last step of the pruning.
    pub(super) fn last_pruning(&self) -> u64 {
        self.total_step.unwrap_or_default().saturating_sub(self.tfinal)
    }

    /// The scale. PEFT's, to the last bit of its f32: it guards against a rank of 0.
    pub(super) fn scaling(&self) -> f64 {
        self.lora_alpha / f64::from(self.init_r as f32 + 1e-5)
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |field: &str, message: String| Err(Error::config(NAME, field, message));
        if self.init_r < 0 {
            return wrong("init_r", format!("should not be negative, is {}", self.init_r));
        }
        let (ranks, range) = (0..=self.init_r, format!("from 0 to init_r ({})", self.init_r));
        check::should_be(ranks.contains(&self.target_r), range, NAME, "target_r", self.target_r)?;
        check::should_be(self.delta_t > 0, "positive", NAME, "deltaT", self.delta_t)?;
        if self.total_step.is_none_or(|t| t == 0) {
            return wrong(
                "total_step",
                "should be the number of training steps: the pruning is planned by it".into(),
            );
        }
        // The first step alone has no average to prune by.
        if self.tinit >= self.last_pruning() || self.last_pruning() < 2 {
            let (first, last) = (self.tinit, self.last_pruning());
            let message = format!(
                "leaves no steps for the pruning from tinit, {first}, to total_step - tfinal, {last}"
            );
            return wrong("total_step", message);
        }
        for (field, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check::should_be(value > 0.0 && value < 1.0, "in (0, 1)", NAME, field, value)?;
        }
        check::not_negative(NAME, "orth_reg_weight", self.orth_reg_weight)?;
        check::above_zero(NAME, "lora_alpha", self.lora_alpha)?;
        check::share(NAME, "lora_dropout", self.lora_dropout)
    }

    /// Every pattern must be that of a target, and speak of all its ranks.
    pub(super) fn check_pattern(&self, sites: &BTreeSet<String>) -> Result<()> {
        for (key, kept) in self.rank_pattern.iter().flatten() {
            if !key.strip_suffix(".lora_E").is_some_and(|site| sites.contains(site)) {
                return Err(no_target(NAME, "rank_pattern", key, sites.iter().map(String::as_str)));
            }
            if usize::try_from(self.init_r) != Ok(kept.len()) {
                let message = format!("`{key}` has {} values for init_r = {}", kept.len(), self.init_r);
                return Err(Error::config(NAME, "rank_pattern", message));
            }
        }
        Ok(())
    }

    /// Rank of the adapter's tensors at a site.
    pub(super) fn rank(&self, site: &str) -> i64 {
        let pattern = self.rank_pattern.as_ref().and_then(|p| p.get(&format!("{site}.lora_E")));
        pattern.map_or(self.init_r, |kept| kept.iter().map(|k| i64::from(*k)).sum())
    }
}
