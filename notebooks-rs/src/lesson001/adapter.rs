//! 3.1 Bottleneck Adapters: `y = x + s · (U gelu(D x + b_d) + b_u)`, with D `[r, d]` and U `[d, r]`.

use super::measure::at;
use crate::layers::{LayersConfig, LayersPeft};
use crate::measure::{max_abs, norm, randn, row, small, torch_size};
use crate::{Mistake, Page, Setting};
use anyhow::{Result, bail};
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::{BottleneckConfig, BottleneckInit, Placement};
use peft_core::models::TinyConfig;
use peft_core::report::commas;
use peft_core::seam::{Init, PREFIX, Role};
use peft_core::{Batch, Model, Pass, Peft, Report};
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use tch::{Kind, Tensor};

/// `hidden_size` and `bottleneck_size`.
const D: i64 = 64;
const R: i64 = 8;
/// Both weights start as N(0, std²), both biases as 0.
const STD: f64 = 1e-3;

/// The lesson's class around nothing, and its output.
#[derive(Debug)]
pub struct Start {
    pub peft: LayersPeft,
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
        let x = randn(&[4, 10, D], setting.device)?;
        let y = peft.view(&["adapter"])?.block("block", &x, Pass::eval())?;
        Ok(Self { peft, x, y })
    }
}

/// An adapter that starts with another standard deviation: how far it is from the identity, and the gradients of
/// `mean(y²)` by D and U.
fn started(start: &Start, up: f64, down: f64) -> Result<[f64; 3]> {
    let own = start.peft.params("adapter")?;
    let (d, u) = (at(own, "block", "adapter_down.weight")?, at(own, "block", "adapter_up.weight")?);
    let was = (d.f_detach_copy()?, u.f_detach_copy()?);
    let name = |leaf: &str| format!("{PREFIX}block.adapter_{leaf}.weight");
    own.assign(&name("down"), &was.0.f_mul_scalar(down / STD)?)?;
    own.assign(&name("up"), &was.1.f_mul_scalar(up / STD)?)?;
    let y = start.peft.view(&["adapter"])?.block("block", &start.x, Pass::eval())?;
    let loss = y.f_square()?.f_mean(Kind::Float)?;
    let grads = Tensor::f_run_backward(&[loss], &[&d, &u], false, false)?;
    let grads = grads.iter().map(norm).collect::<Result<Vec<_>>>()?;
    own.assign(&name("down"), &was.0)?;
    own.assign(&name("up"), &was.1)?;
    match grads[..] {
        [by_d, by_u] => Ok([max_abs(&y, &start.x)?, by_d, by_u]),
        _ => bail!("{} gradients of two weights", grads.len()),
    }
}

/// The start of the weights, from the smallest to the largest; the lesson's is among them, and BERT's, the library's.
const STDS: [f64; 5] = [1e-4, STD, 1e-2, 2e-2, 1e-1];

/// Also gives how far U = 0 is from the identity.
fn starts(start: &Start, page: &mut Page) -> Result<f64> {
    let (mut points, mut gradients, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut add = |name: String, [off, by_d, by_u]: [f64; 3]| {
        rows.push(row([&name, &small(off), &small(by_d), &small(by_u)]));
    };
    for std in STDS {
        let found = started(start, std, std)?;
        points.push((std, found[0]));
        gradients.extend([found[1], found[2]]);
        add(format!("D, U ~ N(0, {std}²)"), found);
    }
    let zero = started(start, 0.0, 0.02)?;
    add("D ~ N(0, 0.02²), U = 0".into(), zero);
    page.table("How an adapter starts", ["start", "largest change of x", "‖∂L/∂D‖", "‖∂L/∂U‖"], rows)?;
    page.fact("starts", points.iter().map(|p| p.1).collect::<Vec<_>>());
    page.fact("gradients", gradients);
    page.fact("zero", zero.to_vec());
    page.figure("unified_adapter", figure(points))?;
    Ok(zero[0])
}

/// The placements of a real model, the lesson's diagram first.
fn placements() -> [(&'static str, BottleneckConfig); 4] {
    let at = |placement: Vec<Placement>, is_parallel: bool| BottleneckConfig {
        bottleneck_size: R,
        placement,
        is_parallel,
        ..BottleneckConfig::default()
    };
    use Placement::{Attention, FeedForward, Layer};
    [
        ("the diagram: after attention, after feed-forward", at(vec![Attention, FeedForward], false)),
        ("after feed-forward alone", at(vec![FeedForward], false)),
        ("after the layer, its residual and norm", at(vec![Layer], false)),
        ("beside feed-forward", at(vec![FeedForward], true)),
    ]
}

/// Where the adapters of a report are, layer numbers folded: `layers.*.attn`.
fn places(report: &Report) -> String {
    let names = report
        .rows
        .iter()
        .filter_map(|r| Some(r.name.strip_prefix(PREFIX)?.strip_suffix(".adapter_down.weight")?.to_owned()));
    names.collect::<Vec<_>>().join(", ")
}

/// Each placement in the lessons' transformer of 28,740 parameters.
fn placed(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let config = TinyConfig::default();
    let batch = Batch::dense(
        Tensor::f_randint(config.vocab, [16, 10], (Kind::Int64, tch::Device::Cpu))?.f_to(setting.device)?,
    );
    let mut peft = Peft::new(config.init(setting.device)?, config)?;
    let _guard = tch::no_grad_guard();
    let base = peft.view(&[])?.forward(&batch, Pass::eval())?;
    let (mut rows, mut moves) = (Vec::new(), Vec::new());
    for (name, config) in placements() {
        let mut moved = |init_weights| -> Result<(f64, Report)> {
            let label = format!("{name}, {init_weights:?}");
            peft.add(&label, BottleneckConfig { init_weights, ..config.clone() })?;
            let logits = peft.view(&[&label])?.forward(&batch, Pass::eval())?;
            Ok((max_abs(&logits, &base)?, peft.report(&[&label])?))
        };
        let (zero, report) = moved(BottleneckInit::Zero)?;
        let (near, _) = moved(BottleneckInit::NearIdentity)?;
        let adapters: i64 =
            report.rows.iter().filter(|r| r.name.ends_with("down.weight")).map(|r| r.count).sum();
        rows.push(row([
            &name,
            &places(&report),
            &adapters,
            &commas(report.trainable),
            &small(near),
            &small(zero),
        ]));
        moves.extend([near, zero]);
    }
    page.fact("placed", moves);
    page.table(
        &format!(
            "Adapters of width {R} in a transformer of two layers, and how far the logits move at the start"
        ),
        ["place", "blocks", "adapters", "parameters", "U ~ N(0, 0.02²)", "U = 0"],
        rows,
    )?;
    Ok(())
}

fn figure(points: Vec<(f64, f64)>) -> Figure {
    let measured = Series { name: "measured".into(), points, markers: true, ..Series::default() };
    let panel = Lines {
        title: "Distance from the identity".into(),
        x: Axis { label: "standard deviation of D and U".into(), log: true, range: None },
        y: Axis { label: "max |y − x|".into(), log: true, range: None },
        series: vec![measured],
    };
    Figure {
        title: "A bottleneck adapter before training".into(),
        rows: vec![vec![Panel::Lines(panel)]],
        note: Some(
            "Slope 2: both weights shrink, and with them their product. U = 0 is exactly the identity."
                .into(),
        ),
    }
}

/// 3.1 Bottleneck Adapters.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let start = Start::new(setting)?;
    let count = start.peft.report(&["adapter"])?.trainable;
    let own = start.peft.params("adapter")?;
    page.line(format!("Adapter parameters: {}", commas(count)))?;
    for (name, leaf) in [("down_proj", "adapter_down"), ("up_proj", "adapter_up")] {
        let weight = at(own, "block", &format!("{leaf}.weight"))?;
        page.line(format!("{name} shape: {}", torch_size(&weight)))?;
    }
    page.line(format!("Input shape: {}", torch_size(&start.x)))?;
    page.line(format!("Output shape: {}", torch_size(&start.y)))?;
    let off = max_abs(&start.y, &start.x)?;
    page.line(format!("Largest change at init: {off:.2e}"))?;
    page.fact("parameters", count);
    page.fact("deviation", off);
    let zero = starts(&start, page)?;
    placed(setting, page)?;
    let llama = Blueprint::about(7_000_000_000)?;
    let at_7b = llama.estimate(BottleneckConfig::default(), &Setup::default())?.report;
    page.fact("llama7b", at_7b.trainable);
    page.mistakes(&[Mistake::new(
        "The near-identity start is near, and no more: an untrained adapter changes what the model says",
        format!("x moves by up to {off:.2e}"),
        format!("U = 0 and D as it is: x moves by {}, and training can begin all the same", small(zero)),
    )])?;
    page.what_to_see(&[
        format!("2 r d + r + d = {}: two matrices and two biases.", commas(count)),
        "The distance from the identity goes with the square of the standard deviation, as D and U are multiplied. At \
         U = 0 the first gradient is U's alone; D follows from the second step on."
            .into(),
        "The diagram leaves out the residual connections and norms of the block itself. An adapter sits before them: \
         Placement::Attention and Placement::FeedForward are the library's default."
            .into(),
        format!(
            "An adapter is no map on weights, so it cannot be merged: it stays in the path of every token. {} parameters \
             at width 64 in LLaMA-7B.",
            commas(at_7b.trainable)
        ),
    ])?;
    Ok(())
}
