//! Bottleneck adapters. Houlsby et al. 2019, <https://arxiv.org/abs/1902.00751> (after attention and after
//! feed-forward); Pfeiffer et al. 2021, <https://arxiv.org/abs/2005.00247> (after feed-forward alone); parallel:
//! He et al. 2022, <https://arxiv.org/abs/2110.04366>. Options and names are those of AdapterHub's `adapters`
//! (Poth et al. 2023, <https://arxiv.org/abs/2311.11077>).
//!
//! Around a block `f`: `y = f(x) + s · (U σ(D h + b_d) + b_u)`, with `h = f(x)` in sequence and `h = x` in parallel.
//! With a layer norm before, `h = LN(f(x))`; with one after, `y = f(x) + LN(s · (..))` or `y = LN(f(x) + s · (..))`.

mod adapter;

use crate::check;
use crate::error::{Error, Result};
use crate::methods::bottleneck::adapter::Bottleneck;
use crate::methods::config::{Common, PeftConfig};
use crate::seam::{Adapter, Method, MethodConfig, Outline, Params, Place, Resolved, Role, Site, SiteKind};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::Tensor;

/// Configuration of bottleneck adapters. PEFT has no such method; names follow AdapterHub, with the two differences that
/// `placement` stands for `mh_adapter` and `output_adapter`, and that a width can be given in numbers.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | D | `[size, width]` | `<block>.adapter_down.weight` | see [`BottleneckInit`] |
/// | b_d | `[size]` | `<block>.adapter_down.bias` | |
/// | U | `[width, size]` | `<block>.adapter_up.weight` | |
/// | b_u | `[width]` | `<block>.adapter_up.bias` | |
/// | s | `[1]` | `<block>.adapter_scale` | 1, with `scaling: "learned"` alone |
/// | LN before | `[width]` twice | `<block>.adapter_norm_before.weight`, `.bias` | 1, 0, with `ln_before` alone |
/// | LN after | `[width]` twice | `<block>.adapter_norm_after.weight`, `.bias` | 1, 0, with `ln_after` alone |
///
/// A block ends before its residual connection, and the model's own norm is outside of it. So of AdapterHub's fields
/// about that norm a file may have the values `original_ln_before: false`, `original_ln_after: true` and
/// `residual_before_ln: true`; others are refused by name, and so are gates, invertible adapters, hypercomplex layers and
/// adapters in cross-attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BottleneckConfig {
    /// Width of the bottleneck. One of this and `reduction_factor` is given; 0 is "not given".
    pub bottleneck_size: i64,
    /// The block's width over that of the bottleneck (which is rounded down, to 1 at least).
    pub reduction_factor: Option<f64>,
    /// The function between the two projections.
    pub non_linearity: Activation,
    /// Blocks that get an adapter.
    pub placement: Vec<Placement>,
    /// Layers of the model without adapters.
    pub leave_out: Vec<i64>,
    /// Read the block's input instead of its output.
    pub is_parallel: bool,
    /// The factor of what the adapter adds.
    pub scaling: Scaling,
    /// A layer norm on what the adapter reads.
    pub ln_before: bool,
    /// A layer norm on what it gives.
    pub ln_after: bool,
    /// `ln_after` covers the sum with the block's output.
    pub adapter_residual_before_ln: bool,
    /// Probability that an element of what the adapter adds is dropped in training.
    pub dropout: f64,
    /// How the adapters start.
    pub init_weights: BottleneckInit,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

/// The function between the two projections of a bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Activation {
    Relu,
    Gelu,
    /// `x σ(x)`; AdapterHub knows it as `"swish"` as well.
    #[serde(alias = "swish")]
    Silu,
    Tanh,
    /// With a slope of 0.01 below 0.
    LeakyRelu,
}

impl Activation {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Relu => x.f_relu()?,
            Activation::Gelu => x.f_gelu("none")?,
            Activation::Silu => x.f_silu()?,
            Activation::Tanh => x.f_tanh()?,
            Activation::LeakyRelu => x.f_leaky_relu()?,
        })
    }
}

/// Which blocks of the model get an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// After self-attention, before its residual connection.
    Attention,
    /// After the feed-forward part, before its residual connection.
    FeedForward,
    /// After the whole layer, residual connections and norms included.
    Layer,
}

impl From<Placement> for Role {
    fn from(p: Placement) -> Self {
        match p {
            Placement::Attention => Role::Attention,
            Placement::FeedForward => Role::FeedForward,
            Placement::Layer => Role::Layer,
        }
    }
}

/// The factor of what an adapter adds: a number or `"learned"` in the file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", expecting = "should be a number or \"learned\"")]
pub enum Scaling {
    /// One number a block, trained. It starts as 1.
    Learned,
    /// A constant.
    #[serde(untagged)]
    Fixed(f64),
}

/// How an adapter starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BottleneckInit {
    /// U = 0: exactly the identity. Draws what PyTorch draws for two `nn.Linear`, then zeroes the second.
    Zero,
    /// All weights N(0, 0.02²), biases 0: nearly the identity, as BERT's weights start. AdapterHub's `"bert"`.
    #[serde(alias = "bert")]
    NearIdentity,
    /// D as `nn.Linear` starts, all else 0.
    MamAdapter,
}

impl Default for BottleneckConfig {
    /// After attention and feed-forward, 64 wide, starting as the identity.
    fn default() -> Self {
        Self {
            bottleneck_size: 64,
            reduction_factor: None,
            non_linearity: Activation::Gelu,
            placement: vec![Placement::Attention, Placement::FeedForward],
            leave_out: Vec::new(),
            is_parallel: false,
            scaling: Scaling::Fixed(1.0),
            ln_before: false,
            ln_after: false,
            adapter_residual_before_ln: false,
            dropout: 0.0,
            init_weights: BottleneckInit::Zero,
            common: Common::default(),
        }
    }
}

impl BottleneckConfig {
    /// Houlsby et al. 2019, in AdapterHub's settings: after attention and feed-forward, a 16th of the width, silu.
    pub fn houlsby() -> Self {
        Self {
            bottleneck_size: 0,
            reduction_factor: Some(16.0),
            non_linearity: Activation::Silu,
            init_weights: BottleneckInit::NearIdentity,
            ..Self::default()
        }
    }

    /// Pfeiffer et al. 2021, in AdapterHub's settings: after feed-forward alone, a 16th of the width, relu. AdapterHub
    /// sends what the adapter reads through the model's own norm first (`original_ln_before`); here it reads the
    /// block's output as it is.
    pub fn pfeiffer() -> Self {
        Self { non_linearity: Activation::Relu, placement: vec![Placement::FeedForward], ..Self::houlsby() }
    }

    /// He et al. 2022, in AdapterHub's settings: beside feed-forward, half of the width, relu, four times over.
    pub fn parallel() -> Self {
        Self {
            reduction_factor: Some(2.0),
            is_parallel: true,
            scaling: Scaling::Fixed(4.0),
            init_weights: BottleneckInit::MamAdapter,
            ..Self::pfeiffer()
        }
    }

    /// Width of the bottleneck at a block of this width.
    pub fn size(&self, width: i64) -> i64 {
        self.reduction_factor.map_or(self.bottleneck_size, |factor| (width as f64 / factor) as i64).max(1)
    }

    fn check(&self, outline: &Outline) -> Result<()> {
        let wrong = |field: &str, message: String| Err(Error::config(NAME, field, message));
        let size = self.bottleneck_size;
        match self.reduction_factor {
            None => check::positive(NAME, "bottleneck_size", size)?,
            Some(factor) => check::above_zero(NAME, "reduction_factor", factor)?,
        }
        if self.reduction_factor.is_some() && size != 0 {
            let message = format!("says the width, and so does bottleneck_size: that should be 0, is {size}");
            return wrong("reduction_factor", message);
        }
        if let Scaling::Fixed(s) = self.scaling {
            check::finite(NAME, "scaling", s)?;
        }
        check::share(NAME, "dropout", self.dropout)?;
        if self.adapter_residual_before_ln && !self.ln_after {
            return wrong("adapter_residual_before_ln", "is for use with ln_after".into());
        }
        for placement in &self.placement {
            let kind = SiteKind::Block((*placement).into());
            if !outline.sites.iter().any(|s| s.kind == kind) {
                return wrong("placement", format!("this model has no {placement:?} block"));
            }
        }
        let layers = outline.dims.sizes()?.layers;
        match self.leave_out.iter().find(|i| !(0..layers).contains(i)) {
            Some(i) => wrong("leave_out", format!("there is no layer {i} in this model of {layers}")),
            None => Ok(()),
        }
    }
}

const NAME: &str = "bottleneck adapter";

impl PeftConfig for BottleneckConfig {
    const TYPE: &'static str = "BOTTLENECK";
    const DEFAULTS: &'static str = r#"{
        "cross_adapter": false, "inv_adapter": null, "original_ln_after": true, "original_ln_before": false,
        "phm_layer": false, "residual_before_ln": true, "stochastic_depth": 0.0, "use_gating": false
    }"#;
}

impl MethodConfig for BottleneckConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.check(outline)?;
        self.common.resolve(NAME, outline)?;
        Ok(self.resolved(BottleneckMethod))
    }
}

/// Bottleneck adapters in one model.
#[derive(Debug)]
struct BottleneckMethod(Arc<BottleneckConfig>);

impl Method for BottleneckMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Place::Block { role, width } = site.place else { return Ok(None) };
        let placed = self.0.placement.iter().any(|p| Role::from(*p) == role);
        if !placed || site.layer.is_some_and(|i| self.0.leave_out.contains(&i)) {
            return Ok(None);
        }
        Ok(Some(Box::new(Bottleneck::new(&self.0, site, width, params)?)))
    }
}
