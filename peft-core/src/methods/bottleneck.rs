//! Bottleneck adapters. Houlsby et al. 2019, <https://arxiv.org/abs/1902.00751> (after attention and after
//! feed-forward); Pfeiffer et al. 2021, <https://arxiv.org/abs/2005.00247> (after feed-forward alone); parallel:
//! He et al. 2022, <https://arxiv.org/abs/2110.04366>.
//!
//! Around a block `f`: `y = f(x) + s · U σ(D h + b_d) + b_u`, with `h = f(x)` in sequence and `h = x` in parallel
//! (the scale covers `b_u` as well).

use super::config::{Common, FileForm, PeftConfig};
use super::Method;
use crate::site::{Outline, Place, Role, Site, SiteKind};
use crate::{Adapter, Error, Init, Inner, Params, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Configuration of bottleneck adapters. PEFT has no such method; names follow AdapterHub.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | D | `[size, width]` | `<block>.adapter_down.weight` | kaiming, or N(0, 0.02²) |
/// | b_d | `[size]` | `<block>.adapter_down.bias` | U(±1/√width), or 0 |
/// | U | `[width, size]` | `<block>.adapter_up.weight` | 0, or N(0, 0.02²) |
/// | b_u | `[width]` | `<block>.adapter_up.bias` | 0 |
/// | s | `[1]` | `<block>.adapter_scale` | 1, with `scaling: "learned"` alone |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BottleneckConfig {
    /// Width of the bottleneck.
    pub bottleneck_size: i64,
    pub non_linearity: Activation,
    /// Blocks that get an adapter.
    pub placement: Vec<Placement>,
    /// Read the block's input instead of its output.
    pub is_parallel: bool,
    pub scaling: Scaling,
    pub init_weights: BottleneckInit,
    #[serde(flatten)]
    pub common: Common,
}

/// σ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Activation {
    Relu,
    Gelu,
    Silu,
    Tanh,
}

impl Activation {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Relu => x.f_relu()?,
            Activation::Gelu => x.f_gelu("none")?,
            Activation::Silu => x.f_silu()?,
            Activation::Tanh => x.f_tanh()?,
        })
    }
}

/// Which blocks.
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

/// s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scaling {
    /// A constant.
    Fixed(f64),
    /// `"learned"`: one number a block, trained.
    Named(String),
}

/// How an adapter starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BottleneckInit {
    /// U = 0: exactly the identity. Draws what PyTorch draws for two `nn.Linear`, then zeroes the second.
    Zero,
    /// All weights N(0, 0.02²), biases 0: nearly the identity, as BERT's weights start.
    NearIdentity,
}

impl Default for BottleneckConfig {
    /// Houlsby's: after attention and feed-forward, 64 wide, starting as the identity.
    fn default() -> Self {
        Self {
            bottleneck_size: 64,
            non_linearity: Activation::Gelu,
            placement: vec![Placement::Attention, Placement::FeedForward],
            is_parallel: false,
            scaling: Scaling::Fixed(1.0),
            init_weights: BottleneckInit::Zero,
            common: Common::default(),
        }
    }
}

const NAME: &str = "bottleneck adapter";

impl PeftConfig for BottleneckConfig {
    const TYPE: &'static str = "BOTTLENECK";
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Method for BottleneckConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&mut self, outline: &Outline) -> Result<()> {
        if self.bottleneck_size <= 0 {
            let message = format!("should be a positive integer, is {}", self.bottleneck_size);
            return Err(Error::config(NAME, "bottleneck_size", message));
        }
        match &self.scaling {
            Scaling::Fixed(s) if s.is_finite() => {}
            Scaling::Named(n) if n == "learned" => {}
            other => return Err(Error::config(NAME, "scaling", format!("{other:?}: a number or \"learned\""))),
        }
        for placement in &self.placement {
            let kind = SiteKind::Block((*placement).into());
            if !outline.sites.iter().any(|s| s.kind == kind) {
                let message = format!("this model has no {placement:?} block");
                return Err(Error::config(NAME, "placement", message));
            }
        }
        self.common.prepare(NAME, outline)
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Place::Block { role, width } = site.place else { return Ok(None) };
        if !self.placement.iter().any(|p| Role::from(*p) == role) {
            return Ok(None);
        }
        let size = self.bottleneck_size;
        let zero = self.init_weights == BottleneckInit::Zero;
        let near = Init::Normal { std: 0.02 };
        let (down, down_bias, up, up_bias) = if zero {
            (Init::KaimingUniform, Init::linear_bias(width), Init::ZerosDrawn, Init::ZerosDrawn)
        } else {
            (near, Init::Zeros, near, Init::Zeros)
        };
        let param = |leaf: &str, dims: &[i64], init| site.param(params, leaf, dims, init);
        let adapter = Bottleneck {
            down: param("adapter_down.weight", &[size, width], down)?,
            down_bias: param("adapter_down.bias", &[size], down_bias)?,
            up: param("adapter_up.weight", &[width, size], up)?,
            up_bias: param("adapter_up.bias", &[width], up_bias)?,
            scale: match self.scaling {
                Scaling::Fixed(s) => Scale::Fixed(s),
                Scaling::Named(_) => Scale::Learned(param("adapter_scale", &[1], Init::Constant(1.0))?),
            },
            activation: self.non_linearity,
            parallel: self.is_parallel,
        };
        Ok(Some(Box::new(adapter)))
    }

    fn file(&self) -> Option<&dyn FileForm> {
        Some(self)
    }
}

#[derive(Debug)]
enum Scale {
    Fixed(f64),
    Learned(Tensor),
}

/// A bottleneck adapter around one block.
#[derive(Debug)]
struct Bottleneck {
    /// `[size, width]`
    down: Tensor,
    /// `[size]`
    down_bias: Tensor,
    /// `[width, size]`
    up: Tensor,
    /// `[width]`
    up_bias: Tensor,
    scale: Scale,
    activation: Activation,
    parallel: bool,
}

impl Adapter for Bottleneck {
    fn name(&self) -> &'static str {
        NAME
    }

    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let y = inner.forward(x)?;
        let h = if self.parallel { x } else { &y }.f_to_kind(Kind::Float)?;
        let h = self.activation.apply(&h.f_linear(&self.down, Some(&self.down_bias))?)?;
        let h = h.f_linear(&self.up, Some(&self.up_bias))?;
        let h = match &self.scale {
            Scale::Fixed(1.0) => h,
            Scale::Fixed(s) => h.f_mul_scalar(*s)?,
            Scale::Learned(s) => h.f_mul(s)?,
        };
        Ok(y.f_add(&h)?.f_to_kind(y.kind())?)
    }
}
