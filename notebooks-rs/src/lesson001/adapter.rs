//! 3.1 Bottleneck Adapters: `y = x + s · (U gelu(D x + b_d) + b_u)`, with D `[r, d]` and U `[d, r]`.

use super::measure::max_abs;
use crate::layers::{Layers, LayersConfig};
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::methods::{BottleneckConfig, Placement};
use peft_core::{Init, PREFIX, Pass, Peft, Role, commas};
use tch::{Device, Kind, Tensor};

/// `hidden_size` and `bottleneck_size`.
const D: i64 = 64;
const R: i64 = 8;
/// Both weights start as N(0, std²), both biases as 0.
const STD: f64 = 1e-3;

/// The lesson's class around nothing, and its output.
#[derive(Debug)]
pub struct Start {
    pub peft: Peft<Layers>,
    /// `[4, 10, d]`
    pub x: Tensor,
    pub y: Tensor,
}

impl Start {
    /// Draws what the lesson's constructor draws: two `nn.Linear`, whose values it then overwrites.
    pub fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        for (inp, out) in [(D, R), (R, D)] {
            let _ = Init::KaimingUniform.tensor(&[out, inp], setting.device)?;
            let _ = Init::linear_bias(inp).tensor(&[out], setting.device)?;
        }
        let draw = |dims: &[i64]| Init::Normal { std: STD }.tensor(dims, setting.device);
        let zeros = |n: i64| Init::Zeros.tensor(&[n], setting.device);
        let tensors = [
            ("adapter_down.weight", draw(&[R, D])?),
            ("adapter_down.bias", zeros(R)?),
            ("adapter_up.weight", draw(&[D, R])?),
            ("adapter_up.bias", zeros(D)?),
        ];
        let mut peft = LayersConfig::new(D, 1).block("block", Role::Layer, D).init(setting.device)?;
        let config = BottleneckConfig {
            bottleneck_size: R,
            placement: vec![Placement::Layer],
            ..BottleneckConfig::default()
        };
        peft.add_with("adapter", config, tensors.map(|(leaf, t)| (format!("{PREFIX}block.{leaf}"), t)))?;
        let x = Tensor::f_randn([4, 10, D], (Kind::Float, Device::Cpu))?.f_to(setting.device)?;
        let y = peft.view(&["adapter"])?.block("block", &x, Pass::eval())?;
        Ok(Self { peft, x, y })
    }
}

/// 3.1 Bottleneck Adapters.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let start = Start::new(setting)?;
    let count = start.peft.report(&["adapter"])?.trainable;
    page.line(format!("Adapter parameters: {}", commas(count)))?;
    let off = max_abs(&start.y, &start.x)?;
    page.line(format!("Largest change of the input at the start: {off:.2e}"))?;
    page.fact("parameters", count);
    page.fact("deviation", off);
    Ok(())
}
