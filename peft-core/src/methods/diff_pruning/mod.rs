//! Diff pruning. Guo et al. 2020, <https://arxiv.org/abs/2012.07463>; its gates are those of Louizos et al. 2018,
//! <https://arxiv.org/abs/1712.01312>.
//!
//! `θ' = θ + z ⊙ w`, for every parameter of the layers that are named. The gates z are hard-concrete, stretched to
//! (l, r) = (−1.5, 1.5): `z = min(1, max(0, s (r − l) + l))` with `s = σ(log u − log(1 − u) + log α)`, u ~ U(0, 1), in
//! training, and `s = σ(log α)` otherwise. The loss gains `λ Σ P(z > 0) = λ Σ σ(log α − log(−l/r))`. With `structured`,
//! z is multiplied by one more gate for the whole parameter.
//!
//! That is the first stage. [`DiffPruningConfig::prune`] makes the second one of it: the differences of largest size, by
//! index and value, whose values can be trained on. Its file is as small as the share that was kept.

mod adapter;

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig};
use crate::methods::diff_pruning::adapter::{Diff, DiffPruning, open_gates};
use crate::seam::{
    Adapter, Init, Method, MethodConfig, Outline, PREFIX, Params, Place, Resolved, Site, SiteKind, numel,
};
use crate::target::{Adaptable, Layers, Targets};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Configuration of diff pruning. PEFT has no such method.
///
/// For a layer's weight; its bias, where it has one, has the same with `diff_bias`:
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | w | the weight's | `<site>.diff_weight.w` | 0 |
/// | log α | the weight's | `<site>.diff_weight.log_alpha` | `alpha_init` |
/// | log α of the whole | `[1]` | `<site>.diff_weight.group_log_alpha` | `alpha_init`, with `structured` alone |
///
/// and once it is `pruned`, n being what was kept of the weight:
///
/// | tensor | shape | stored as |
/// |---|---|---|
/// | places in the flat weight, rising, int32 (int64 above 2³¹) | `[n]` | `<site>.diff_weight.indices` |
/// | differences | `[n]` | `<site>.diff_weight.values` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiffPruningConfig {
    /// Where the gates' log α starts: 5 is a gate that is open, and that few draws close.
    pub alpha_init: f64,
    /// Weight λ of the penalty: of the expected number of open gates.
    pub sparsity_penalty: f64,
    /// One more gate for each parameter as a whole.
    pub structured: bool,
    /// The second stage; see [`DiffPruningConfig::prune`].
    pub pruned: bool,
    /// Layers with weights: linear layers, embeddings, norms. There is no default.
    #[serde(flatten)]
    pub targets: Targets,
    /// Only some layers of the model.
    #[serde(flatten)]
    pub layers: Layers,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

impl Default for DiffPruningConfig {
    fn default() -> Self {
        Self {
            alpha_init: 5.0,
            sparsity_penalty: 1.25e-7,
            structured: false,
            pruned: false,
            targets: Targets::default(),
            layers: Layers::default(),
            common: Common::default(),
        }
    }
}

const NAME: &str = "diff pruning";
const CAN: Adaptable = Adaptable {
    method: NAME,
    kinds: &[SiteKind::Linear, SiteKind::Embedding, SiteKind::Norm, SiteKind::Own],
    default: None,
};
/// Ends l and r of the interval to which gates are stretched, before they are cut to [0, 1].
const STRETCH: (f64, f64) = (-1.5, 1.5);
const W: &str = ".w";
const LOG_ALPHA: &str = ".log_alpha";
const GROUP: &str = ".group_log_alpha";
const INDICES: &str = ".indices";
const VALUES: &str = ".values";

impl DiffPruningConfig {
    /// The share of all differences that the penalty expects to find different from 0; `None` once it is pruned.
    pub fn expected_density(&self, params: &Params) -> Result<Option<f64>> {
        let _guard = tch::no_grad_guard();
        let Some((open, all)) = open_gates(params)? else { return Ok(None) };
        Ok(Some(open.f_double_value(&[])? / all.max(1) as f64))
    }

    /// The second stage: the share `density` of all differences `z ⊙ w` that is largest in size, over all parameters
    /// together (and no zeros; 1 keeps all others). The result goes to [`Peft::add_with`](crate::peft::Peft::add_with).
    ///
    /// # Errors
    /// A density that is not in (0, 1]; an adapter that is pruned already.
    pub fn prune(&self, params: &Params, density: f64) -> Result<(Self, BTreeMap<String, Tensor>)> {
        check::kept(NAME, "density", density)?;
        if self.pruned {
            return Err(Error::config(NAME, "pruned", "is true already"));
        }
        let _guard = tch::no_grad_guard();
        let (mut names, mut flat, mut tensors) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, tensor) in params.tensors() {
            if let Some(name) = name.strip_suffix(W) {
                let diff = self.diff(name, &tensor.size(), params)?;
                flat.push(diff.value(false)?.f_flatten(0, -1)?);
                names.push(name.to_owned());
            } else if !name.ends_with(LOG_ALPHA) && !name.ends_with(GROUP) {
                tensors.insert(name, tensor);
            }
        }
        let sizes: Vec<i64> = flat.iter().map(numel).collect();
        let sizes_of_all = Tensor::f_cat(&flat, 0)?.f_abs()?;
        let keep = (numel(&sizes_of_all) as f64 * density).round().max(1.0) as i64;
        let (largest, at) = sizes_of_all.f_topk(keep, 0, true, false)?;
        let kept = sizes_of_all.f_zeros_like()?.f_index_copy(0, &at, &largest)?.f_gt(0.0)?;
        let kept = kept.f_split_with_sizes(&sizes, 0)?;
        for ((name, flat), kept) in names.iter().zip(&flat).zip(&kept) {
            let at = kept.f_nonzero()?.f_flatten(0, -1)?;
            tensors.insert(format!("{name}{VALUES}"), flat.f_index_select(0, &at)?);
            let narrow = i32::try_from(numel(flat)).is_ok();
            let at = if narrow { at.f_to_kind(Kind::Int)? } else { at };
            tensors.insert(format!("{name}{INDICES}"), at);
        }
        Ok((Self { pruned: true, ..self.clone() }, tensors))
    }

    fn check(&self) -> Result<()> {
        check::finite(NAME, "alpha_init", self.alpha_init)?;
        check::not_negative(NAME, "sparsity_penalty", self.sparsity_penalty)
    }

    /// What is added to a parameter of that name (`<site>.diff_weight`) and shape.
    fn diff(&self, name: &str, dims: &[i64], params: &Params) -> Result<Diff> {
        if self.pruned {
            return Diff::sparse(name, dims, params);
        }
        let start = Init::Constant(self.alpha_init);
        let get = |leaf: &str, dims: &[i64], init| params.get_or_init(&format!("{name}{leaf}"), dims, init);
        Ok(Diff::Gated {
            w: get(W, dims, Init::Zeros)?,
            log_alpha: get(LOG_ALPHA, dims, start)?,
            group: self.structured.then(|| get(GROUP, &[1], start)).transpose()?,
        })
    }
}

impl PeftConfig for DiffPruningConfig {
    const TYPE: &'static str = "DIFF_PRUNING";
}

impl MethodConfig for DiffPruningConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.check()?;
        self.common.resolve(NAME, outline)?;
        let found = self.targets.resolve(&CAN, &self.layers, self.common.saved(), outline)?;
        self.targets.target_modules = Some(found.names);
        Ok(self.resolved(|config| DiffPruningMethod { config, sites: found.sites }))
    }
}

/// Diff pruning in one model.
#[derive(Debug)]
struct DiffPruningMethod {
    config: Arc<DiffPruningConfig>,
    /// The adapted layers.
    sites: BTreeSet<String>,
}

impl Method for DiffPruningMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Place::Layer { shape, base, .. } = site.place else { return Ok(None) };
        if !self.sites.contains(site.name) {
            return Ok(None);
        }
        let diff = |leaf: &str, dims: &[i64]| {
            self.config.diff(&format!("{PREFIX}{}.{leaf}", site.name), dims, params)
        };
        let weight = diff("diff_weight", shape)?;
        let bias = base.bias().map(|bias| diff("diff_bias", &bias.size()));
        Ok(Some(Box::new(DiffPruning { weight, bias: bias.transpose()? })))
    }

    fn penalty(&self, params: &Params) -> Result<Option<Tensor>> {
        let open = open_gates(params)?;
        Ok(open.map(|(open, _)| open.f_mul_scalar(self.config.sparsity_penalty)).transpose()?)
    }

    fn frozen(&self, name: &str) -> bool {
        name.ends_with(INDICES)
    }

    /// Places are no parameters.
    fn uncounted(&self, params: &Params) -> i64 {
        let places = params.tensors().into_iter().filter(|(name, _)| name.ends_with(INDICES));
        places.map(|(_, t)| numel(&t)).sum::<i64>().saturating_neg()
    }
}
