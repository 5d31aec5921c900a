//! The lesson's test: a linear layer from 512 to 256, a method over it, and 32 random inputs.

use super::gaussian_start;
use crate::layers::{LayersConfig, LayersPeft};
use crate::measure::torch_size;
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_core::seam::{Init, LowRank, PREFIX, Role};
use peft_core::{Params, Pass};
use tch::{Device, Kind, Tensor};

/// Inputs, outputs, rows of x; the rank, which is an adapter's width as well; alpha; the lesson's dropout.
pub const INP: i64 = 512;
pub const OUT: i64 = 256;
const ROWS: i64 = 32;
pub const R: i64 = 16;
pub const ALPHA: f64 = 32.0;
const DROPOUT: f64 = 0.1;
/// The layer's name, and that of the place behind it, where an adapter sits.
pub const LAYER: &str = "original_layer";
const AFTER: &str = "after";
/// The LoRA of [`Test::new`].
pub const LORA: &str = "lora";

/// The layer with its LoRA, and the inputs.
#[derive(Debug)]
pub struct Test {
    pub peft: LayersPeft,
    /// `[32, 512]`
    pub x: Tensor,
}

/// LoRA as the test has it, without dropout.
pub fn lora(r: i64) -> LoraConfig {
    let targets = [LAYER].into();
    LoraConfig { r, lora_alpha: ALPHA, targets, ..LoraConfig::default() }
}

impl Test {
    /// Draws as the lesson does: the layer, A, x. The methods that the lesson does not get to are drawn after them, so
    /// that all have the same layer and the same inputs.
    pub fn new(setting: Setting) -> Result<Self> {
        let Setting { seed, device } = setting;
        tch::manual_seed(seed);
        let layers = LayersConfig::new(OUT, 1).linear(LAYER, INP, OUT, true);
        let mut peft = layers.block(AFTER, Role::FeedForward, OUT).init(device)?;
        let start = gaussian_start(LAYER, [OUT, INP], R)?;
        peft.add_with(LORA, LoraConfig { lora_dropout: DROPOUT, ..lora(R) }, start)?;
        let x = Tensor::f_randn([ROWS, INP], (Kind::Float, Device::Cpu))?.f_to(device)?;
        Ok(Self { peft, x })
    }

    /// The output with these adapters, `[32, 256]`.
    pub fn forward(&self, active: &[&str], pass: Pass<'_>) -> Result<Tensor> {
        self.through(&self.x, active, pass)
    }

    /// The same of other inputs.
    pub fn through(&self, x: &Tensor, active: &[&str], pass: Pass<'_>) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let view = self.peft.view(active)?;
        view.block(AFTER, &view.linear(LAYER)?.forward(x, pass)?, pass)
    }

    /// W, `[256, 512]`.
    pub fn weight(&self) -> Result<Tensor> {
        tensor(self.peft.base(), &format!("{LAYER}.weight"))
    }

    /// The tensor `leaf` of a method at the layer.
    pub fn at(&self, method: &str, leaf: &str) -> Result<Tensor> {
        tensor(self.peft.params(method)?, &format!("{PREFIX}{LAYER}.{leaf}"))
    }

    /// Puts N(0, 0.02²) in the place of a tensor that starts at zero, as if the method had been trained. `name` is its
    /// place and leaf.
    pub fn as_if_trained(&self, method: &str, name: &str) -> Result<()> {
        let (params, name) = (self.peft.params(method)?, format!("{PREFIX}{name}"));
        let drawn = Init::Normal { std: 0.02 }.tensor(&tensor(params, &name)?.size(), params.device())?;
        Ok(params.assign(&name, &drawn)?)
    }

    /// LoRA's ΔW = s · B A, `[256, 512]`.
    pub fn delta(&self, method: &str, config: &LoraConfig) -> Result<Tensor> {
        let (a, b) = (self.at(method, "lora_A.weight")?, self.at(method, "lora_B.weight")?);
        Ok(LowRank { a, b, scale: config.scaling(), bias: None }.delta()?)
    }

    /// What the lesson prints about a method: its counts, the shapes, and `last`, which should be nothing.
    pub fn print(
        &self,
        method: &str,
        title: &str,
        y: &Tensor,
        last: (&str, f64),
        page: &mut Page,
    ) -> Result<()> {
        let (base, report) = (self.peft.report(&[])?.all, self.peft.report(&[method])?);
        let reduction = 1.0 - report.trainable as f64 / report.all as f64;
        page.line(format!("🔧 Creating a test linear layer and its {title} version..."))?;
        page.line(format!("Original layer parameters: {}", commas(base)))?;
        page.line(format!("{title} trainable parameters: {}", commas(report.trainable)))?;
        page.line(format!("{title} total parameters: {}", commas(report.all)))?;
        page.line(format!("Parameter reduction: {:.1}%", 100.0 * reduction))?;
        page.line(format!("Input shape: {}", torch_size(&self.x)))?;
        page.line(format!("Output shape: {}", torch_size(y)))?;
        page.line(format!("Initial {} norm: {:.6} (should be ~0)", last.0, last.1))?;
        page.fact("trainable", report.trainable);
        page.fact("total", report.all);
        page.fact("reduction", reduction);
        page.fact("reduction_of_the_layer", 1.0 - report.trainable as f64 / base as f64);
        page.fact("start_norm", last.1);
        Ok(())
    }
}

fn tensor(params: &Params, name: &str) -> Result<Tensor> {
    let found = params.tensors().remove(name);
    found.ok_or_else(|| anyhow::anyhow!("no tensor `{name}`"))?.f_detach().map_err(Into::into)
}

/// How many directions a matrix has, in f64.
pub fn matrix_rank(t: &Tensor) -> Result<i64> {
    let rank = t.f_to_kind(Kind::Double)?.f_linalg_matrix_rank_atol_rtol_float(None, 1e-6, false)?;
    Ok(rank.f_int64_value(&[])?)
}
