//! A model from outside the crate with parameters that are of no layer, and with kernels of its own.

mod laws;
mod limits;
mod shared;

use anyhow::Result;
use peft_core::build::{Architecture, Layer, Scope};
use peft_core::methods::PartialConfig;
use peft_core::{Batch, Model, Params, Pass, Peft};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// `head(mean(gate ⊙ up(conv(x)) + bias)) · scale`, for x `[batch, 4, length]`.
#[derive(Debug)]
struct Sequence;

#[derive(Debug)]
struct SequenceView {
    /// A convolution that moves on by 2.
    conv: Layer,
    /// A transposed one: its bias is as long as its weight's second dimension.
    up: Layer,
    gate: Tensor,
    bias: Tensor,
    head: Layer,
    scale: Tensor,
}

impl Architecture for Sequence {
    fn build(&self, scope: &Scope<'_>) -> peft_core::Result<Box<dyn Model>> {
        let mix = scope.at("mix");
        Ok(Box::new(SequenceView {
            conv: scope.layer_of("conv", &[6, 4, 3], Some(6), |x, w| {
                Ok(x.f_conv1d(&w.weight, w.bias.as_ref(), [2], [1], [1], 1)?)
            })?,
            up: scope.layer_of("up", &[6, 5, 3], Some(5), |x, w| {
                Ok(x.f_conv_transpose1d(&w.weight, w.bias.as_ref(), [1], [0], [0], 1, [1])?)
            })?,
            gate: mix.param("gate", &[5, 1])?,
            bias: mix.param("bias", &[5, 1])?,
            head: scope.linear("head", 5, 3, true)?,
            scale: scope.param("scale", &[1])?,
        }))
    }
}

impl Model for SequenceView {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> peft_core::Result<Tensor> {
        let x = self.conv.forward(batch.features()?, pass)?.f_relu()?;
        let x = self.up.forward(&x, pass)?.f_mul(&self.gate)?.f_add(&self.bias)?;
        let means = x.f_mean_dim([2i64].as_slice(), false, None::<Kind>)?;
        Ok(self.head.forward(&means, pass)?.f_mul(&self.scale)?)
    }
}

const SHAPES: [(&str, &[i64]); 9] = [
    ("conv.weight", &[6, 4, 3]),
    ("conv.bias", &[6]),
    ("up.weight", &[6, 5, 3]),
    ("up.bias", &[5]),
    ("mix.gate", &[5, 1]),
    ("mix.bias", &[5, 1]),
    ("head.weight", &[3, 5]),
    ("head.bias", &[3]),
    ("scale", &[1]),
];

fn tensors() -> BTreeMap<String, Tensor> {
    let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    SHAPES.iter().map(|(name, shape)| ((*name).to_owned(), random(shape))).collect()
}

fn sequence() -> Result<Peft> {
    Ok(Peft::new(Params::from_tensors("the sequence model", Device::Cpu, tensors())?, Sequence)?)
}

fn features() -> Batch {
    Batch::of_features(Tensor::randn([3, 4, 9], (Kind::Float, Device::Cpu)))
}

fn partial(parameters: &[&str]) -> PartialConfig {
    PartialConfig { target_parameters: Some(parameters.into()), ..PartialConfig::default() }
}
