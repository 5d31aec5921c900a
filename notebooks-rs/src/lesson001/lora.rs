//! 2.1 Mathematical Principle of LoRA: `h = W₀ x + b + s · B A x`, with A `[r, k]`, B `[d, r]` and `s = α/r`.

use super::measure::{at, linear};
use super::{apply, ranks};
use crate::layers::{LayersConfig, LayersPeft};
use crate::measure::{max_abs, norm, randn, row, small, torch_size};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::Pass;
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_core::seam::{Init, PREFIX};
use peft_core::tch::{Kind, Tensor};

/// Inputs and outputs of the linear layer.
const K: i64 = 64;
const D: i64 = 48;
/// The lesson's defaults.
const R: i64 = 8;
const ALPHA: f64 = 16.0;
/// For the look at dropout: its probability, and how often it is drawn.
const P: f64 = 0.1;
const PASSES: i64 = 4000;

/// `LinearWithLoRA(nn.Linear(64, 48))`, step by step.
#[derive(Debug)]
pub struct Trace {
    pub peft: LayersPeft,
    /// A as it starts.
    pub a: Tensor,
    /// `[4, 10, k]`
    pub x: Tensor,
    /// Of the layer alone, and of the layer with B = 0.
    pub y_base: Tensor,
    pub y_start: Tensor,
    /// With B from N(0, 0.02²), as if it were trained, and the gradients of `mean(y²)` by A and B.
    pub y: Tensor,
    pub grads: [Tensor; 2],
    /// The base with `s · B A` folded in, and what it gives.
    pub merged: LayersPeft,
    pub y_merged: Tensor,
    /// What the lesson's `forward` gives after `merge_weights`: the branch is still there.
    pub y_twice: Tensor,
}

/// LoRA at `targets` with the lesson's rank and alpha.
pub fn config(targets: &[&str]) -> LoraConfig {
    LoraConfig { r: R, lora_alpha: ALPHA, targets: targets.into(), ..LoraConfig::default() }
}

impl Trace {
    pub fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        let mut peft = LayersConfig::new(K, 1).linear("linear", K, D, true).init(setting.device)?;
        peft.add("lora", config(&["linear"]))?;
        let [a, b] = ["lora_A.weight", "lora_B.weight"].map(|leaf| at(peft.params("lora")?, "linear", leaf));
        let (a, b) = (a?, b?);
        let x = randn(&[4, 10, K], setting.device)?;
        let (y_base, y_start) = (linear(&peft, &[], "linear", &x)?, linear(&peft, &["lora"], "linear", &x)?);

        let trained = Init::Normal { std: 0.02 }.tensor(&[D, R], setting.device)?;
        peft.params("lora")?.assign(&format!("{PREFIX}linear.lora_B.weight"), &trained)?;
        let y = linear(&peft, &["lora"], "linear", &x)?;
        y.f_square()?.f_mean(Kind::Float)?.f_backward()?;
        let grads = [a.f_grad()?, b.f_grad()?];

        let mut merged = peft.merged(&["lora"])?;
        let y_merged = linear(&merged, &[], "linear", &x)?;
        merged.add_with("lora", config(&["linear"]), peft.params("lora")?.tensors())?;
        let y_twice = linear(&merged, &["lora"], "linear", &x)?;
        Ok(Self { a, x, y_base, y_start, y: y.f_detach()?, grads, merged, y_merged, y_twice, peft })
    }

    /// How far the output with dropout is from that without: in one pass, and the mean of many.
    fn dropped(&mut self) -> Result<[f64; 3]> {
        let config = LoraConfig { lora_dropout: P, ..config(&["linear"]) };
        let tensors = self.peft.params("lora")?.tensors();
        self.peft.add_with("dropped", config, tensors)?;
        let _guard = tch::no_grad_guard();
        let view = self.peft.view(&["dropped"])?;
        let layer = view.linear("linear")?;
        let x = self.x.f_view([-1, K])?.f_narrow(0, 0, 1)?;
        let y = linear(&self.peft, &["lora"], "linear", &x)?;
        let drawn = layer.forward(&x.f_repeat([PASSES, 1])?, Pass::train())?;
        let mean = drawn.f_mean_dim(0, true, Kind::Float)?;
        let one = max_abs(&drawn.f_narrow(0, 0, 1)?, &y)?;
        Ok([max_abs(&layer.forward(&x, Pass::eval())?, &y)?, one, max_abs(&mean, &y)?])
    }
}

/// 2.1 Mathematical Principle.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let mut trace = Trace::new(setting)?;
    let report = trace.peft.report(&["lora"])?;
    let own = trace.peft.params("lora")?;
    page.line(format!("W shape: torch.Size([{D}, {K}])  (d x k)"))?;
    for (letter, note) in [("A", "(r x k)"), ("B", "(d x r)")] {
        let t = at(own, "linear", &format!("lora_{letter}.weight"))?;
        page.line(format!("{letter} shape: {}  {note}", torch_size(&t)))?;
    }
    page.line(format!("Scaling alpha/r: {}", config(&[]).scaling()))?;
    let (trained, all) = (commas(report.trainable), commas(report.all));
    page.line(format!("LoRA trainable: {trained} / {all}  ({:.2}%)", report.percent()))?;
    page.line(format!("Identity at init: {}", trace.y_start.f_equal(&trace.y_base)?))?;
    let [off, twice] = [&trace.y_merged, &trace.y_twice].map(|y| max_abs(y, &trace.y));
    let (off, twice) = (off?, twice?);
    page.line(format!("Merged, largest difference: {off:.1e}"))?;
    let [grad_a, grad_b] = trace.grads.each_ref().map(norm);
    for (name, number) in [
        ("trainable", report.trainable as f64),
        ("all", report.all as f64),
        ("merge_error", off),
        ("twice_error", twice),
        ("grad_a", grad_a?),
        ("grad_b", grad_b?),
    ] {
        page.fact(name, number);
    }

    ranks::example(page)?;
    let [eval, one, mean] = trace.dropped()?;
    page.table(
        &format!("Dropout of {P} on the input of A: how far the output moves"),
        ["pass", "largest difference"],
        vec![
            row([&"eval", &small(eval)]),
            row([&"train, once", &small(one)]),
            row([&format!("train, mean of {}", commas(PASSES)), &small(mean)]),
        ],
    )?;
    for (name, number) in [("dropout.eval", eval), ("dropout.once", one), ("dropout.mean", mean)] {
        page.fact(name, number);
    }
    let applied = apply::run(setting, page)?;
    let fitted = ranks::fit(setting, page)?;

    let largest = trace.a.f_abs()?.f_max()?.f_double_value(&[])?;
    let full = ranks::EXAMPLE * ranks::EXAMPLE;
    let mut mistakes = vec![Mistake::new(
        "`LoRALayer` calls `math.sqrt`, and `math` is not imported",
        "NameError at the first layer",
        format!(
            "with it, A is from U(±1/√{K}) = U(±{:.4}); the largest |A| drawn is {largest:.4}",
            1.0 / (K as f64).sqrt()
        ),
    )];
    mistakes.push(Mistake::new(
        format!("d = k = {} has 16.7M parameters, the example says", ranks::EXAMPLE),
        "16.7M: cut off, not rounded",
        format!("{} = {:.1}M", commas(full), full as f64 / 1e6),
    ));
    mistakes.extend(applied);
    mistakes.push(Mistake::new(
        "`forward` after `merge_weights` still adds the branch",
        format!("the update counts twice: off by {twice:.4}"),
        format!("`merged` gives a base without a branch: off by {off:.1e}, rounding"),
    ));
    page.mistakes(&mistakes)?;
    page.what_to_see(&[
        "B = 0 makes the start the base itself, to the last bit; A is drawn, so that B has a gradient.".into(),
        format!("The frozen weight has none: the gradients are those of A and B, {trained} numbers."),
        fitted,
        format!(
            "Dropout is on A's input and in training alone, scaled by 1/(1 − {P}): one pass is off by {one:.1e}, the \
             mean of many by {mean:.1e}, and the base's own path is never touched."
        ),
    ])?;
    Ok(())
}
