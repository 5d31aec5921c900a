//! Several adapters made into one: PEFT's `add_weighted_adapter`.
//!
//! With `sᵢ` an adapter's scale, `Dᵢ = sᵢ Bᵢ Aᵢ` its change of a weight and `wᵢ` its share, which may be negative:
//!
//! | [`Combination`] | rank | the new adapter |
//! |---|---|---|
//! | `Factors(Linear)` | equal ones | `A = Σ ±√\|wᵢsᵢ\| Aᵢ`, `B = Σ √\|wᵢsᵢ\| Bᵢ`, the sign that of `wᵢsᵢ`; cross terms make it an approximation |
//! | `Cat` | Σ rᵢ | `A` = rows of `wᵢsᵢAᵢ` stacked, `B` = columns of `Bᵢ` stacked: exactly `Σ wᵢDᵢ` |
//! | `Svd(Linear, ..)` | chosen, or the largest | the closest to `Σ wᵢDᵢ`: `B = U S`, `A = Vᵀ` |
//! | `Factors(..)`, `Svd(..)` of another [`Arithmetic`] | as above | the factors, or the `Dᵢ`, pruned and merged |
//!
//! The result is an ordinary LoRA adapter of scale 1. It starts from the plain configuration, so that it is right where
//! PEFT's, a copy of the first adapter's, is not: with rsLoRA, whose scale would be √r, and with patterns. DoRA, whose
//! magnitudes PEFT resets, is refused: it is no low-rank change. A site that only some of the adapters have gets a
//! combination of those. One adapter alone is combined as asked, where PEFT takes `linear` whatever it was told: by `svd` it
//! is cut to a lower rank, by `ties` it is pruned.

mod arithmetic;
mod ia3;
mod settings;

pub use arithmetic::{Arithmetic, MajoritySign};
pub use settings::Settings;

use crate::check;
use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::peft::to_lora::assembly::{Assembly, AssemblySite};
use crate::peft::to_lora::changes::{Change, Changes, Delta};
use crate::seam::{Kernel, LowRank, PREFIX, Svd};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

const NAME: &str = "combine";

/// How adapters are combined; see [`Peft::combine`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Combination {
    /// The changes side by side: exact, and as wide as all of them together.
    Cat,
    /// The A matrices and the B matrices, each for themselves; the ranks must be equal.
    Factors(Arithmetic),
    /// The changes `D`, of which the closest change of low rank is taken.
    Svd(Arithmetic, Rank),
}

/// The low rank that a [`Combination::Svd`] ends in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rank {
    /// By default, the largest of the adapters' ranks.
    pub rank: Option<i64>,
    /// Cuts the values of A and B off at ± this quantile of all of them. PEFT's quantile depends on the signs that the
    /// factorisation happens to give the singular vectors; here each value counts with both signs.
    pub clamp: Option<f64>,
}

impl Combination {
    fn check(&self) -> Result<()> {
        match self {
            Combination::Cat => Ok(()),
            Combination::Factors(arithmetic) => arithmetic.check(),
            Combination::Svd(arithmetic, Rank { rank, clamp }) => {
                rank.map_or(Ok(()), |rank| check::positive(NAME, "svd_rank", rank))?;
                let fits =
                    |q: f64| check::should_be((0.0..=1.0).contains(&q), "in [0, 1]", NAME, "svd_clamp", q);
                clamp.map_or(Ok(()), fits)?;
                arithmetic.check()
            }
        }
    }

    /// The change of one site; `parts` are those of the adapters that have it.
    fn of(&self, site: &str, parts: &[(f64, &LowRank)], rank: i64) -> Result<LowRank> {
        let plain = matches!(self, Combination::Cat | Combination::Factors(Arithmetic::Linear))
            || matches!(self, Combination::Svd(Arithmetic::Linear, _));
        let bias = LowRank::sum_of_biases(parts)?;
        if bias.is_some() && !plain {
            let why = "it has a bias, and only linear, cat and svd combine biases".to_owned();
            return Err(Error::Unsupported { method: NAME, site: site.to_owned(), why });
        }
        let change = match self {
            Combination::Cat => LowRank::sum(parts)?.padded(rank)?,
            Combination::Factors(arithmetic) => factors(site, *arithmetic, parts)?.padded(rank)?,
            Combination::Svd(arithmetic, Rank { clamp, .. }) => {
                let svd = match arithmetic {
                    Arithmetic::Linear => Svd::of_product(&LowRank::sum(parts)?)?,
                    other => {
                        let deltas = parts.iter().map(|(w, part)| Ok((*w, part.delta()?)));
                        Svd::of(&other.of(&deltas.collect::<Result<Vec<_>>>()?)?)?
                    }
                };
                clamped(svd.truncated(rank)?.0, *clamp)?
            }
        };
        Ok(LowRank { bias, ..change })
    }

    /// The new adapter's rank, from the adapters' largest ones.
    fn rank(&self, ranks: &[i64]) -> i64 {
        let largest = ranks.iter().copied().max().unwrap_or_default();
        match self {
            Combination::Cat => ranks.iter().copied().fold(0, i64::saturating_add),
            Combination::Factors(_) => largest,
            Combination::Svd(_, Rank { rank, .. }) => rank.unwrap_or(largest),
        }
    }
}

/// `Σ` over A and B, each for itself.
fn factors(site: &str, arithmetic: Arithmetic, parts: &[(f64, &LowRank)]) -> Result<LowRank> {
    let ranks = parts.iter().map(|(_, part)| part.rank()).collect::<Result<Vec<_>>>()?;
    if ranks.iter().any(|r| Some(r) != ranks.first()) {
        let message = format!("ranks {ranks:?} differ at `{site}`: combine by cat or svd");
        return Err(Error::config(NAME, "r", message));
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (w, part) in parts {
        let scale = w * part.scale;
        let root = scale.abs().sqrt();
        a.push((if scale < 0.0 { -root } else { root }, part.a.shallow_clone()));
        b.push((root, part.b.shallow_clone()));
    }
    Ok(LowRank { a: arithmetic.of(&a)?, b: arithmetic.of(&b)?, scale: 1.0, bias: None })
}

fn clamped(change: LowRank, quantile: Option<f64>) -> Result<LowRank> {
    let Some(quantile) = quantile else { return Ok(change) };
    let all = Tensor::f_cat(&[change.a.f_flatten(0, -1)?, change.b.f_flatten(0, -1)?], 0)?;
    let both = Tensor::f_cat(&[&all, &all.f_neg()?], 0)?;
    let most = both.f_quantile_scalar(quantile, 0, false, "linear")?.f_double_value(&[])?;
    let (low, high) = (-most.abs(), most.abs());
    Ok(LowRank { a: change.a.f_clamp(low, high)?, b: change.b.f_clamp(low, high)?, ..change })
}

impl Peft {
    /// Adds the adapter `new`, a weighted combination of LoRA adapters; weights may be negative. Of (IA)³ adapters, the
    /// weighted sum of their vectors.
    ///
    /// A module that one of them trains whole (`modules_to_save`) is taken over as it is, a copy of a weight in 4 bits as a
    /// dense one. One adapter alone is combined as asked; PEFT's is always `linear` then.
    ///
    /// ```
    /// # use peft_core::Peft;
    /// # use peft_core::methods::LoraConfig;
    /// # use peft_core::models::TinyConfig;
    /// use peft_core::combine::{Arithmetic, Combination};
    /// # fn main() -> peft_core::Result<()> {
    /// # let config = TinyConfig::default();
    /// # let mut peft = Peft::new(config.init(tch::Device::Cpu)?, config)?;
    /// # let lora = LoraConfig::new(8).targets(["ff.0"]);
    /// # peft.add("french", lora.clone())?;
    /// # peft.add("legal", lora)?;
    /// peft.combine("french law", &[("french", 0.7), ("legal", 0.3)], Combination::Cat)?;
    /// peft.combine("less law", &[("french", 1.0), ("legal", -0.2)], Combination::Factors(Arithmetic::Linear))?;
    /// let model = peft.view(&["french law"])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Names that are unknown, taken or given twice; adapters of another method, or with parts that are no low-rank
    /// change, naming the site; ranks that differ, where they must be equal; settings out of range; two adapters that
    /// both train one module.
    pub fn combine(&mut self, new: &str, adapters: &[(&str, f64)], how: Combination) -> Result<()> {
        how.check()?;
        self.check_new(new)?;
        if adapters.is_empty() {
            return Err(Error::config(NAME, "adapters", "there is none to combine"));
        }
        if let Some((name, w)) = adapters.iter().find(|(_, w)| !w.is_finite()) {
            return Err(Error::config(NAME, "weights", format!("`{name}` has weight {w}")));
        }
        let names: Vec<&str> = adapters.iter().map(|(name, _)| *name).collect();
        self.active(&names)?;
        let _guard = tch::no_grad_guard();
        if self.kind_of(&names)? == "IA3" {
            ia3::combine(self, new, adapters, how)?;
            return self.take_classes(new, &names);
        }
        let mut sources = Vec::new();
        for name in &names {
            let source = Changes::read(self, name, false)?;
            self.check_whole(name, &source)?;
            sources.push(source);
        }
        self.add_assembly(new, &assemble(&sources, adapters, how)?, &sources)?;
        self.take_classes(new, &names)
    }

    /// Whether the low-rank changes and the copies are all there is to the adapter.
    fn check_whole(&self, name: &str, source: &Changes) -> Result<()> {
        if let Some(layer) = source.layers.iter().find(|l| matches!(l.weight, Delta::Dense(_))) {
            let why = "its change is not low-rank and additive, so it cannot be combined".to_owned();
            return Err(Error::Unsupported { method: layer.method, site: layer.site.clone(), why });
        }
        let known = |key: &str| {
            let Some(path) = key.strip_prefix(PREFIX) else { return false };
            let lora = source
                .layers
                .iter()
                .any(|l| path.strip_prefix(&l.site).is_some_and(|leaf| leaf.starts_with(".lora_")));
            lora || source.copies.contains_key(path) || source.inert.contains(key)
        };
        match self.params(name)?.tensors().into_keys().find(|key| !known(key)) {
            Some(key) => {
                let message = format!("`{name}` has `{key}`, which cannot be combined");
                Err(Error::config(NAME, "adapters", message))
            }
            None => Ok(()),
        }
    }

    /// PEFT's name of the one method that the adapters have.
    fn kind_of(&self, names: &[&str]) -> Result<String> {
        let mut kinds = Vec::new();
        for name in names {
            let kind = self.file(name)?.get("peft_type").and_then(Value::as_str).map(str::to_owned);
            kinds.push(kind.unwrap_or_default());
        }
        let kind = kinds.first().cloned().unwrap_or_default();
        for (name, other) in names.iter().zip(&kinds) {
            if !["LORA", "IA3"].contains(&other.as_str()) {
                let message = format!(
                    "`{name}` is {}: only LoRA and (IA)³ adapters can be combined",
                    self.method(name)?.name()
                );
                return Err(Error::config(NAME, "adapters", message));
            }
            if *other != kind {
                let first = names.first().copied().unwrap_or_default();
                return Err(Error::config(
                    NAME,
                    "adapters",
                    format!("`{name}` is {other}, and `{first}` is {kind}"),
                ));
            }
        }
        Ok(kind)
    }
}

/// The combination of every site that one of the adapters has.
fn assemble(sources: &[Changes], adapters: &[(&str, f64)], how: Combination) -> Result<Assembly> {
    let mut copies = BTreeMap::new();
    let mut modules = BTreeSet::new();
    let mut ranks = Vec::new();
    let mut sites: Vec<(&Change, Vec<(f64, &LowRank)>)> = Vec::new();
    for (source, (name, w)) in sources.iter().zip(adapters) {
        let mut largest = 0;
        for layer in &source.layers {
            let Delta::LowRank(change) = &layer.weight else { continue };
            largest = largest.max(change.rank()?);
            match sites.iter_mut().find(|(first, _)| first.site == layer.site) {
                Some((_, parts)) => parts.push((*w, change)),
                None => sites.push((layer, vec![(*w, change)])),
            }
        }
        ranks.push(largest);
        for (param, value) in &source.copies {
            if copies.insert(param.clone(), value.shallow_clone()).is_some() {
                let message = format!("`{name}` and another one both train `{param}`");
                return Err(Error::config(NAME, "modules_to_save", message));
            }
        }
        modules.extend(source.modules());
    }
    let rank = how.rank(&ranks);
    let combined = sites.into_iter().map(|(layer, parts)| {
        let change = how.of(&layer.site, &parts, rank)?;
        Ok(AssemblySite { name: layer.site.clone(), embedding: layer.kernel == Kernel::Embedding, change })
    });
    Ok(Assembly { rank, sites: combined.collect::<Result<_>>()?, values: copies, modules, biases: false })
}
