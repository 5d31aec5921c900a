//! A model without numbers.

use crate::error::{Error, Result};
use crate::estimate::memory::{Memory, Setup, Storage, bytes};
use crate::hub::HubModel;
use crate::io::directory;
use crate::models::{FamilyVisitor, family, model_type};
use crate::peft::quantised::linears;
use crate::peft::report::{Report, commas};
use crate::peft::{Adapted, Peft};
use crate::run::model::Model;
use crate::seam::method::MethodConfig;
use crate::seam::params::Params;
use crate::seam::site::{Outline, SiteOutline};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use tch::Kind;

/// A model of which the configuration alone is known: all names and shapes, and no number.
#[derive(Debug)]
pub struct Blueprint {
    phantom: Box<dyn Phantom>,
    /// Its shape is not a model's, but made up for a size.
    assumed: bool,
}

/// What is asked of a phantom, whatever its family.
trait Phantom: fmt::Debug + Send {
    fn outline(&self) -> &Outline;
    /// Name and number of values of each stored parameter.
    fn numels(&self) -> BTreeMap<String, i64>;
    /// PEFT's counts, and the tensors of a fresh adapter.
    fn adapted(&self, config: Box<dyn MethodConfig>) -> Result<(Report, Fresh)>;
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

impl<M: Model> Phantom for Peft<M> {
    fn outline(&self) -> &Outline {
        Peft::outline(self)
    }

    fn numels(&self) -> BTreeMap<String, i64> {
        self.base().numels()
    }

    fn adapted(&self, config: Box<dyn MethodConfig>) -> Result<(Report, Fresh)> {
        let method = config.resolve(Peft::outline(self))?;
        let name = method.method.name();
        let adapted = self.complete(name, Adapted::fresh(method, Params::phantom(name)))?;
        let params = Peft::outline(self).params.iter();
        let copies: BTreeSet<String> =
            params.filter_map(|param| Some(adapted.resolved.overlay(param)?.key)).collect();
        let (numels, tensors) = (adapted.params.numels(), adapted.params.tensors());
        let own = |(name, t): (String, tch::Tensor)| Own {
            numel: numels.get(&name).copied().unwrap_or_default(),
            trained: t.requires_grad(),
            copy: copies.contains(&name),
        };
        let report = self.count(&[adapted.active(name)]);
        let tensors = tensors.into_iter().map(own).collect();
        Ok((report, Fresh { tensors, state: adapted.params.state_bytes() }))
    }
}

/// What a method trains, and what training holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    pub report: Report,
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
    /// The model of a configuration.
    pub fn of<M: Model>(config: M::Config) -> Result<Self> {
        let layers = M::dims(&config).layers;
        if !(0..=MOST_LAYERS).contains(&layers) {
            let message = format!("{layers} is not between 0 and {MOST_LAYERS}");
            return Err(Error::config("estimate", "layers", message));
        }
        let phantom = Box::new(Peft::<M>::new(Params::phantom("the model"), config)?);
        Ok(Self { phantom, assumed: false })
    }

    /// The model of a Hub `config.json`, whose `model_type` says the family; `place` is what errors call it.
    ///
    /// # Errors
    /// A family that is not in [`models`](crate::models), a field that is missing or wrong, by name.
    pub fn read(json: &Value, place: &str) -> Result<Self> {
        struct Reader<'a>(&'a Value, &'a str);
        impl FamilyVisitor for Reader<'_> {
            type Output = Result<Blueprint>;
            fn visit<M: HubModel>(self) -> Self::Output {
                Blueprint::of::<M>(M::config(self.0, self.1, None)?)
            }
        }
        family(model_type(json, place)?, place, Reader(json, place))?
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

    /// The model's sites and parameters.
    pub fn outline(&self) -> &Outline {
        self.phantom.outline()
    }

    /// Number of its parameters. Those of a tied head count once.
    pub fn parameters(&self) -> i64 {
        self.phantom.numels().into_values().fold(0, i64::saturating_add)
    }

    /// Bytes of the model's weights.
    ///
    /// # Errors
    /// A wrong [`Nf4Config`](crate::quant::Nf4Config).
    pub fn weights(&self, storage: &Storage) -> Result<i64> {
        let numels = self.phantom.numels();
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
        let (report, fresh) = self.phantom.adapted(config.into())?;
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
        let d = &self.outline().dims;
        let size = commas(self.parameters());
        write!(f, "{} of {size} parameters, {} layers of width {}", d.model_type, d.layers, d.hidden)?;
        match self.assumed {
            true => {
                f.write_str(": an assumed shape, LLaMA's for that size; only a config.json has a model's own")
            }
            false => Ok(()),
        }
    }
}
