//! A model without numbers.

use crate::error::{Error, Result};
use crate::estimate::memory::{Memory, Setup, Storage, bytes};
use crate::io::directory;
use crate::models::family;
use crate::peft::quantised::linears;
use crate::peft::report::{Report, commas};
use crate::peft::{Adapted, Peft};
use crate::run::Architecture;
use crate::seam::{MethodConfig, Outline, Params, SiteOutline};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use tch::Kind;

/// A model of which the configuration alone is known: all names and shapes, and no number.
#[derive(Debug)]
pub struct Blueprint {
    /// Over tensors that have shapes and no numbers.
    peft: Peft,
    /// Its shape is not a model's, but made up for a size.
    assumed: bool,
}

/// The tensors of an adapter.
struct Fresh {
    tensors: Vec<Own>,
    /// Bytes of what is derived and not trained.
    state: i64,
}

struct Own {
    numel: i64,
    trained: bool,
    /// A copy of a parameter of the base, in its dtype.
    copy: bool,
}

impl Fresh {
    /// PEFT's counts, and the tensors of a fresh adapter.
    fn of(config: Box<dyn MethodConfig>, peft: &Peft) -> Result<(Report, Self)> {
        let method = config.resolve(peft.outline())?;
        let name = method.method.name();
        let adapted = peft.complete(name, Adapted::fresh(method, Params::phantom(name)))?;
        let params = peft.outline().params.iter();
        let copies: BTreeSet<String> =
            params.filter_map(|param| Some(adapted.resolved.overlay(param)?.key)).collect();
        let (numels, tensors) = (adapted.params.numels(), adapted.params.tensors());
        let own = |(name, t): (String, tch::Tensor)| Own {
            numel: numels.get(&name).copied().unwrap_or_default(),
            trained: t.requires_grad(),
            copy: copies.contains(&name),
        };
        let report = peft.count(&[adapted.active(name)]);
        let tensors = tensors.into_iter().map(own).collect();
        Ok((report, Self { tensors, state: adapted.params.state_bytes() }))
    }
}

/// What a method trains, and what training holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// How many parameters are trained, and of how many.
    pub report: Report,
    /// What training holds between two steps.
    pub memory: Memory,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}, activations not counted", self.report, self.memory)
    }
}

/// More layers than any model has: the constructor makes them one by one.
const MOST_LAYERS: i64 = 10_000;

impl Blueprint {
    /// The model of an architecture.
    ///
    /// # Errors
    /// More layers than any model has.
    pub fn of(architecture: impl Into<Box<dyn Architecture>>) -> Result<Self> {
        Self::shared(architecture.into().into())
    }

    /// A model that is there, without its numbers and its adapters.
    ///
    /// # Errors
    /// As [`Blueprint::of`].
    pub fn like(peft: &Peft) -> Result<Self> {
        Self::shared(peft.shared())
    }

    pub(super) fn shared(architecture: Arc<dyn Architecture>) -> Result<Self> {
        let layers = architecture.dims().transformer.map_or(0, |sizes| sizes.layers);
        if !(0..=MOST_LAYERS).contains(&layers) {
            let message = format!("{layers} is not between 0 and {MOST_LAYERS}");
            return Err(Error::config("estimate", "layers", message));
        }
        Ok(Self { peft: Peft::of(Params::phantom("the model"), architecture)?, assumed: false })
    }

    /// The model of a Hub `config.json`, whose `model_type` says the family; `place` is what errors call it.
    ///
    /// # Errors
    /// A family that is not in [`models`](crate::models), a field that is missing or wrong, by name.
    pub fn read(json: &Value, place: &str) -> Result<Self> {
        Self::shared(family(json, place)?.describe(json, place, None)?.0)
    }

    /// The model of a directory, of which only `config.json` need be there.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let (json, path) = directory::config(dir.as_ref())?;
        Self::read(&json, &path.display().to_string())
    }

    /// A decoder of about that many parameters in the proportions of LLaMA: heads of 128, as many layers as heads, a
    /// feed-forward of ⌈8/3⌉ of the width in steps of 256, 32,000 words. 7 and 13 billion are the LLaMAs of that size. It is
    /// an assumption, and displayed as one.
    ///
    /// # Errors
    /// Fewer than 10 million, and more than 10 trillion.
    pub fn about(parameters: i64) -> Result<Self> {
        if !(10_000_000..=10_000_000_000_000).contains(&parameters) {
            let message = format!("{parameters} is not between 10 million and 10 trillion");
            return Err(Error::config("estimate", "parameters", message));
        }
        // 2 · 32000 · d + l · (4 d² + 3 · 8/3 d²), for d = 128 l.
        let numel = |heads: i64| {
            let (l, d) = (heads as f64, 128.0 * heads as f64);
            2.0 * 32_000.0 * d + 12.0 * l * d * d
        };
        let off = |heads: &i64| (numel(*heads) / parameters as f64).ln().abs();
        let heads = (1..2000).min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(1);
        let hidden = heads.saturating_mul(128);
        let ffn = hidden.unsigned_abs().saturating_mul(8).div_ceil(3).next_multiple_of(256);
        let json = json!({
            "model_type": "llama", "vocab_size": 32000, "hidden_size": hidden, "intermediate_size": ffn,
            "num_hidden_layers": heads, "num_attention_heads": heads
        });
        Ok(Self { assumed: true, ..Self::read(&json, "a decoder of that size")? })
    }

    /// What builds the model.
    pub(super) fn architecture(&self) -> Arc<dyn Architecture> {
        self.peft.shared()
    }

    /// The model's sites and parameters.
    pub fn outline(&self) -> &Outline {
        self.peft.outline()
    }

    /// Number of its parameters. Those of a tied head count once.
    pub fn parameters(&self) -> i64 {
        self.peft.base().numels().into_values().fold(0, i64::saturating_add)
    }

    /// Bytes of the model's weights.
    ///
    /// # Errors
    /// A wrong [`Nf4Config`](crate::quant::Nf4Config).
    pub fn weights(&self, storage: &Storage) -> Result<i64> {
        let numels = self.peft.base().numels();
        let quantised: BTreeSet<String> = match storage {
            Storage::Dense(_) => BTreeSet::new(),
            Storage::Nf4 { config, .. } => {
                let linears = linears(config, self.outline(), |name| numels.contains_key(name))?;
                linears.into_iter().map(SiteOutline::weight).collect()
            }
        };
        let each = numels.iter().map(|(name, numel)| storage.bytes(*numel, quantised.contains(name)));
        Ok(each.fold(0, i64::saturating_add))
    }

    /// What a method would train in this model, and what that would hold.
    ///
    /// # Errors
    /// What [`Peft::add`] says to the configuration.
    pub fn estimate(&self, config: impl Into<Box<dyn MethodConfig>>, setup: &Setup) -> Result<Estimate> {
        let (report, fresh) = Fresh::of(config.into(), &self.peft)?;
        let mut memory =
            Memory { base: self.weights(&setup.base)?, adapter: fresh.state, ..Memory::default() };
        for own in fresh.tensors {
            let kind = if own.copy { setup.base.dense() } else { Kind::Float };
            memory.adapter = memory.adapter.saturating_add(bytes(own.numel, kind));
            if own.trained {
                memory = memory.training(own.numel, kind, setup.optimizer);
            }
        }
        Ok(Estimate { report, memory })
    }
}

impl fmt::Display for Blueprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = &self.outline().dims;
        let name = if dims.model_type.is_empty() { "a model" } else { &dims.model_type };
        write!(f, "{name} of {} parameters", commas(self.parameters()))?;
        if let Some(sizes) = &dims.transformer {
            write!(f, ", {} layers of width {}", sizes.layers, sizes.hidden)?;
        }
        match self.assumed {
            true => {
                f.write_str(": an assumed shape, LLaMA's for that size; only a config.json has a model's own")
            }
            false => Ok(()),
        }
    }
}
