//! The bottleneck itself: its tensors and its computation.

use crate::error::Result;
use crate::methods::bottleneck::{Activation, BottleneckConfig, BottleneckInit, Scaling};
use crate::seam::{Adapter, Init, Inner, Kernel, Params, Site, Weights};
use tch::{Kind, Tensor};

/// A layer norm, with PyTorch's default, which AdapterHub's have.
const NORM: Kernel = Kernel::LayerNorm { eps: 1e-5 };

/// A bottleneck adapter around one block.
#[derive(Debug)]
pub(super) struct Bottleneck {
    norm_before: Option<Weights>,
    /// `[size, width]`
    down: Tensor,
    /// `[size]`
    down_bias: Tensor,
    /// `[width, size]`
    up: Tensor,
    /// `[width]`
    up_bias: Tensor,
    norm_after: Option<Weights>,
    scale: Scale,
    activation: Activation,
    parallel: bool,
    residual_before_norm: bool,
    dropout: f64,
}

#[derive(Debug)]
enum Scale {
    Fixed(f64),
    Learned(Tensor),
}

impl Bottleneck {
    pub fn new(c: &BottleneckConfig, site: &Site<'_>, width: i64, params: &Params) -> Result<Self> {
        let size = c.size(width);
        let near = Init::Normal { std: 0.02 };
        let (down, down_bias, up, up_bias) = match c.init_weights {
            BottleneckInit::Zero => {
                (Init::KaimingUniform, Init::linear_bias(width), Init::ZerosDrawn, Init::ZerosDrawn)
            }
            BottleneckInit::NearIdentity => (near, Init::Zeros, near, Init::Zeros),
            BottleneckInit::MamAdapter => (Init::KaimingUniform, Init::Zeros, Init::Zeros, Init::Zeros),
        };
        let param = |leaf: &str, dims: &[i64], init| site.param(params, leaf, dims, init);
        let norm = |wanted: bool, name: &str| -> Result<Option<Weights>> {
            let one = |leaf: &str, start| param(&format!("{name}.{leaf}"), &[width], Init::Constant(start));
            let new = || Ok(Weights { weight: one("weight", 1.0)?, bias: Some(one("bias", 0.0)?) });
            wanted.then(new).transpose()
        };
        Ok(Self {
            norm_before: norm(c.ln_before, "adapter_norm_before")?,
            down: param("adapter_down.weight", &[size, width], down)?,
            down_bias: param("adapter_down.bias", &[size], down_bias)?,
            up: param("adapter_up.weight", &[width, size], up)?,
            up_bias: param("adapter_up.bias", &[width], up_bias)?,
            norm_after: norm(c.ln_after, "adapter_norm_after")?,
            scale: match c.scaling {
                Scaling::Fixed(s) => Scale::Fixed(s),
                Scaling::Learned => Scale::Learned(param("adapter_scale", &[1], Init::Constant(1.0))?),
            },
            activation: c.non_linearity,
            parallel: c.is_parallel,
            residual_before_norm: c.adapter_residual_before_ln,
            dropout: c.dropout,
        })
    }
}

impl Adapter for Bottleneck {
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let y = inner.forward(x)?;
        let h = if self.parallel { x } else { &y }.f_to_kind(Kind::Float)?;
        let h = self.norm_before.as_ref().map(|norm| NORM.apply(&h, norm)).transpose()?.unwrap_or(h);
        let h = self.activation.apply(&h.f_linear(&self.down, Some(&self.down_bias))?)?;
        let h = h.f_linear(&self.up, Some(&self.up_bias))?;
        let h = match &self.scale {
            Scale::Fixed(1.0) => h,
            Scale::Fixed(s) => h.f_mul_scalar(*s)?,
            Scale::Learned(s) => h.f_mul(s)?,
        };
        let h = inner.pass.dropped(h, self.dropout)?;
        let sum = match &self.norm_after {
            None => y.f_add(&h)?,
            Some(norm) if self.residual_before_norm => NORM.apply(&h.f_add(&y)?, norm)?,
            Some(norm) => NORM.apply(&h, norm)?.f_add(&y)?,
        };
        Ok(sum.f_to_kind(y.kind())?)
    }
}
