//! (IA)³: learned vectors that scale keys, values and the feed-forward's hidden units. Liu et al. 2022,
//! <https://arxiv.org/abs/2205.05638>, section 3.3.
//!
//! `y = l ⊙ (W x + b)`, and at a feed-forward layer `y = W (l ⊙ x) + b`.

use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig};
use crate::seam::{Adapter, Init, Inner, Method, MethodConfig, Outline, Params, Resolved, Site, Weights};
use crate::target::{Adaptable, Layers, Names, Selected, Targets, defaults, no_target};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tch::Tensor;

/// Configuration of (IA)³; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | l | `[out, 1]`; at a feed-forward layer `[1, in]` | `<site>.ia3_l` | 1; N(0, 1) for `false` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ia3Config {
    /// Linear layers to adapt.
    #[serde(flatten)]
    pub targets: Targets,
    /// Those of the targets whose input is scaled and not their output: sites whose path ends in an entry (PEFT's rule:
    /// no dot needed before it), or which a single regular expression matches whole. In a list every entry is one of the
    /// targets. `None` is PEFT's default for the model type, as far as it is among the targets.
    pub feedforward_modules: Option<Names>,
    /// Whether all scales start as 1, which changes nothing; if not, they are drawn from N(0, 1).
    pub init_ia3_weights: bool,
    /// Whether weights are stored as `[in, out]`: what the model says, whatever is set here.
    pub fan_in_fan_out: bool,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

impl Default for Ia3Config {
    fn default() -> Self {
        Self {
            targets: Targets::default(),
            feedforward_modules: None,
            init_ia3_weights: true,
            fan_in_fan_out: false,
            common: Common::default(),
        }
    }
}

impl Ia3Config {
    /// `feedforward_modules` as the file has it: in a list, names that are among the targets, or PEFT refuses it.
    fn feedforward_names(&self, found: &Selected, default: Option<&[&str]>) -> Result<Names> {
        let wrong = |message: String| Err(Error::config(NAME, FIELD, message));
        let default = default.map(|list| Names::list(list.iter().copied()));
        let Some(names) = self.feedforward_modules.clone().or(default) else {
            return wrong("there is no default for this model type: name them, or none (`[]`)".into());
        };
        let (Names::List(names), Names::List(targets)) = (&names, &found.names) else { return Ok(names) };
        let given = self.feedforward_modules.is_some();
        let listed = given && matches!(self.targets.target_modules, Some(Names::List(_)));
        let mut kept = Vec::new();
        for name in names {
            if targets.contains(name) {
                kept.push(name.clone());
                continue;
            }
            // A default, or a part of `all-linear`: the targets that it stands for say the same.
            let longer: Vec<String> = targets.iter().filter(|t| t.ends_with(name)).cloned().collect();
            let needed = given || found.sites.iter().any(|s| s.ends_with(name));
            if listed || (longer.is_empty() && needed) {
                return wrong(format!("`{name}` is not one of target_modules"));
            }
            kept.extend(longer);
        }
        Ok(Names::List(kept))
    }
}

/// Those of the sites that the names stand for. A name that stands for none is an error, but for one that is a target, or
/// comes from the defaults.
fn feedforward_sites(names: &Names, found: &Selected, default: Option<&[&str]>) -> Result<BTreeSet<String>> {
    let sites = || found.sites.iter().map(String::as_str);
    let Names::List(list) = names else { return names.hits(NAME, FIELD, sites()) };
    let known = |name: &str| match &found.names {
        Names::List(_) => true,
        Names::Pattern(_) => default.is_some_and(|d| d.contains(&name)) || sites().any(|s| s.ends_with(name)),
    };
    if let Some(name) = list.iter().find(|name| !known(name)) {
        return Err(no_target(NAME, FIELD, name, sites()));
    }
    Ok(sites().filter(|s| list.iter().any(|n| s.ends_with(n))).map(str::to_owned).collect())
}

const NAME: &str = "(IA)³";
const CAN: Adaptable = Adaptable::linear(NAME, defaults::ia3);
const FIELD: &str = "feedforward_modules";

impl PeftConfig for Ia3Config {
    const TYPE: &'static str = "IA3";
}

impl MethodConfig for Ia3Config {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.common.resolve(NAME, outline)?;
        let found = self.targets.resolve(&CAN, &Layers::default(), self.common.saved(), outline)?;
        let default = defaults::ia3_feed_forward(&outline.dims.model_type);
        let names = self.feedforward_names(&found, default)?;
        let feedforward = feedforward_sites(&names, &found, default)?;
        self.feedforward_modules = Some(names);
        self.targets.target_modules = Some(found.names);
        self.fan_in_fan_out = found.transposed;
        let start = if self.init_ia3_weights { Init::Constant(1.0) } else { Init::Normal { std: 1.0 } };
        Ok(self.resolved(|_| Ia3Method { sites: found.sites, feedforward, start }))
    }
}

/// (IA)³ in one model.
#[derive(Debug)]
struct Ia3Method {
    /// The adapted layers.
    sites: BTreeSet<String>,
    /// Those of them whose input is scaled.
    feedforward: BTreeSet<String>,
    start: Init,
}

impl Method for Ia3Method {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Some((out, inp)) = site.linear_of(&self.sites) else { return Ok(None) };
        let feedforward = self.feedforward.contains(site.name);
        let shape = if feedforward { [1, inp] } else { [out, 1] };
        let l = site.param(params, "ia3_l", &shape, self.start)?;
        Ok(Some(Box::new(Ia3 { l, feedforward })))
    }
}

/// (IA)³ at one linear layer.
#[derive(Debug)]
pub struct Ia3 {
    /// The scales, `[out, 1]`; `[1, in]` at a feed-forward layer.
    pub l: Tensor,
    /// Whether the layer's input is scaled, and not its output.
    pub feedforward: bool,
}

impl Ia3 {
    /// `l ⊙ x`, in the dtype of x.
    fn scale(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_mul(&self.l.f_view([-1])?)?.f_to_kind(x.kind())?)
    }
}

impl Adapter for Ia3 {
    /// `diag(l) W` and `l ⊙ b`; `W diag(l)` at a feed-forward layer. The shape of l says which.
    fn reweight(&self, w: Weights) -> Result<Weights> {
        let weight = w.weight.f_mul(&self.l)?.f_to_kind(w.weight.kind())?;
        let bias = match w.bias {
            Some(b) if !self.feedforward => Some(self.scale(&b)?),
            bias => bias,
        };
        Ok(Weights { weight, bias })
    }

    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        if self.feedforward { inner.forward(&self.scale(x)?) } else { self.scale(&inner.forward(x)?) }
    }
}
