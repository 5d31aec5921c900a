//! Activations by the names that `config.json` has for them.

use crate::error::Result;
use serde::Deserialize;
use tch::Tensor;

/// The activation of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// x Φ(x).
    Gelu,
    /// GELU's tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    Relu,
    /// x σ(x).
    #[serde(alias = "swish")]
    Silu,
}

impl HiddenAct {
    pub(super) fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            HiddenAct::Gelu => x.f_gelu("none")?,
            HiddenAct::GeluNew => x.f_gelu("tanh")?,
            HiddenAct::Relu => x.f_relu()?,
            HiddenAct::Silu => x.f_silu()?,
        })
    }
}
