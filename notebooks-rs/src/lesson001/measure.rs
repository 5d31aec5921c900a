//! What the sections of this lesson look at.

use crate::layers::LayersPeft;
use anyhow::{Context, Result};
use peft_core::seam::PREFIX;
use peft_core::{Params, Pass};
use tch::Tensor;

/// The tensor `leaf` of an adapter at `site`.
pub fn at(params: &Params, site: &str, leaf: &str) -> Result<Tensor> {
    let name = format!("{PREFIX}{site}.{leaf}");
    params.find(&name).with_context(|| format!("no tensor `{name}`"))
}

/// The linear layer `name` under the adapters, without dropout.
pub fn linear(peft: &LayersPeft, active: &[&str], name: &str, x: &Tensor) -> Result<Tensor> {
    Ok(peft.view(active)?.linear(name)?.forward(x, Pass::eval())?)
}
