//! 1 Initialization Strategy: `h = W₀ x + (α/r) B A x` with `A ~ N(0, σ²)` and `B = 0`, and the lesson's test of it.

use super::layer::{ALPHA, INP, LAYER, LORA, OUT, R, Test, lora, matrix_rank};
use super::{gaussian_start, lines, percent, series};
use crate::measure::{max_abs, norm};
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::Pass;
use peft_core::methods::{InitLora, LoraConfig};
use peft_core::seam::LowRank;
use peft_core::train::{AdamConfig, Schedule, Trainer};
use peft_plot::{Figure, Panel};
use tch::{Device, Kind, Reduction, Tensor};

/// Learning rate and steps of the look at starts.
const LR: f64 = 1e-3;
const STEPS: u64 = 60;
/// Rank of the change to be learned.
const TARGET: i64 = 4;

/// Everything that the lesson's test computes, and what comes after it with a B that is not zero.
#[derive(Debug)]
pub struct Trace {
    pub test: Test,
    /// In train mode, as the lesson's test runs it, with B = 0.
    pub y_start: Tensor,
    pub delta_start: Tensor,
    /// With B from N(0, 0.02²): two passes with dropout, one without.
    pub y_dropped: [Tensor; 2],
    pub y: Tensor,
    pub delta: Tensor,
}

impl Trace {
    /// In the order in which Python draws.
    pub fn new(setting: Setting) -> Result<Self> {
        let test = Test::new(setting)?;
        let y_start = test.forward(&[LORA], Pass::train())?;
        let delta_start = test.delta(LORA, &lora(R))?;
        test.as_if_trained(LORA, &format!("{LAYER}.lora_B.weight"))?;
        let dropped = || test.forward(&[LORA], Pass::train());
        let y_dropped = [dropped()?, dropped()?];
        let (y, delta) = (test.forward(&[LORA], Pass::eval())?, test.delta(LORA, &lora(R))?);
        Ok(Self { test, y_start, delta_start, y_dropped, y, delta })
    }
}

/// 1 Initialization Strategy.
pub fn initialization(setting: Setting, page: &mut Page) -> Result<()> {
    let mut trace = Trace::new(setting)?;
    trace.test.print(LORA, "LoRA", &trace.y_start, ("ΔW", norm(&trace.delta_start)?), page)?;
    page.fact("identity", max_abs(&trace.y_start, &trace.test.forward(&[], Pass::eval())?)?);
    page.fact("delta_norm", norm(&trace.delta)?);
    page.fact("delta_rank", matrix_rank(&trace.delta)?);
    page.fact("between_passes", max_abs(&trace.y_dropped[0], &trace.y_dropped[1])?);
    page.fact("between_eval_passes", max_abs(&trace.y, &trace.test.forward(&[LORA], Pass::eval())?)?);
    mistakes(&trace, page)?;
    let starts = starts(&mut trace.test)?;
    compare(&starts, page)?;
    page.what_to_see(&[
        format!(
            "With B = 0, ΔW is zero whatever A is; with a B from N(0, 0.02²), ‖ΔW‖ is {:.4} and its rank {}, r.",
            norm(&trace.delta)?,
            matrix_rank(&trace.delta)?
        ),
        "A must not be zero as well: the gradient of A has the factor B and that of B the factor A, so two zeros never move."
            .into(),
        format!(
            "So at the first step B alone moves, and ΔW moves along A: from PEFT's start {:.1} times as far as from the \
             lesson's with Adam, {:.1} times with SGD.",
            starts[1].adam / starts[0].adam,
            starts[1].sgd / starts[0].sgd
        ),
        "The base is frozen: W₀ has no gradient, and no memory is spent on one.".into(),
    ])?;
    Ok(())
}

fn mistakes(trace: &Trace, page: &mut Page) -> Result<()> {
    let (base, report) = (trace.test.peft.report(&[])?.all, trace.test.peft.report(&[LORA])?);
    let of = |all: i64| percent(1.0 - report.trainable as f64 / all as f64);
    let scale = |r: i64| lora(r).scaling();
    let (eval, default) = (trace.test.forward(&[LORA], Pass::eval())?, 4);
    let peft = LoraConfig::default();
    page.fact("scale_of_defaults", scale(default));
    page.fact("scale_of_the_test", scale(R));
    page.mistakes(&[
        Mistake::new(
            "reduction of what",
            format!("{} of layer and LoRA together, a total that nobody trains", of(report.all)),
            format!("{} of the layer, which full fine-tuning would train", of(base)),
        ),
        Mistake::new(
            "the test runs in train mode, with dropout",
            format!(
                "unseen, because B is zero; with another B two passes differ by up to {:.3}",
                max_abs(&trace.y_dropped[0], &trace.y_dropped[1])?
            ),
            format!("in eval mode by {}", max_abs(&trace.y, &eval)?),
        ),
        Mistake::new(
            "alpha is 16 or 32, whatever the rank",
            format!(
                "the class's defaults, rank {default} and alpha {ALPHA}, scale by {}, its test, rank {R}, by {}: the same \
                 B A counts {} times as much",
                scale(default),
                scale(R),
                scale(default) / scale(R)
            ),
            format!("alpha goes with the rank, alpha/r is what counts; PEFT's defaults {}/{} give {}", peft.lora_alpha, peft.r, peft.scaling()),
        ),
        Mistake::new(
            "A is Gaussian",
            "in the paper, and N(0, 0.01²) in this class".to_owned(),
            format!(
                "the paper's code and PEFT draw U(±1/√in), a standard deviation of {:.4} here",
                (1.0 / (3.0 * INP as f64)).sqrt()
            ),
        ),
    ])?;
    Ok(())
}

/// How a LoRA goes from one start of A.
struct Start {
    title: &'static str,
    std: f64,
    /// Norms of the first gradients.
    grad_a: f64,
    grad_b: f64,
    /// `‖ΔW‖` after one step.
    adam: f64,
    sgd: f64,
    losses: Vec<f64>,
}

/// Three starts, one task: y should become that of a weight that differs by a matrix of rank 4.
fn starts(test: &mut Test) -> Result<Vec<Start>> {
    let float = (Kind::Float, Device::Cpu);
    let change = Tensor::f_randn([OUT, TARGET], float)?.f_mm(&Tensor::f_randn([TARGET, INP], float)?)?;
    let change = change.f_mul_scalar(0.02)?.f_to(test.x.device())?;
    let target = test.forward(&[], Pass::eval())?.f_add(&test.x.f_mm(&change.f_tr()?)?)?;

    test.peft.add_with("N(0, 0.01²), the lesson's", lora(R), gaussian_start(LAYER, [OUT, INP], R)?)?;
    test.peft.add("U(±1/√in), PEFT's", lora(R))?;
    test.peft.add(
        "N(0, 1/r²), PEFT's `gaussian`",
        LoraConfig { init_lora_weights: InitLora::Gaussian, ..lora(R) },
    )?;
    let titles = ["N(0, 0.01²), the lesson's", "U(±1/√in), PEFT's", "N(0, 1/r²), PEFT's `gaussian`"];
    titles.into_iter().map(|title| follow(test, title, &target)).collect()
}

fn follow(test: &Test, title: &'static str, target: &Tensor) -> Result<Start> {
    let at = |leaf: &str| test.at(title, leaf);
    let a = at("lora_A.weight")?.f_detach_copy()?;
    let std = a.f_std(false)?.f_double_value(&[])?;
    let trainable = test.peft.trainable(&[title])?;
    let grad = |leaf: &str| -> Result<Tensor> {
        let found = trainable.iter().find(|(name, _)| name.contains(leaf));
        Ok(found.with_context(|| format!("no {leaf}"))?.1.f_grad()?)
    };
    let mut trainer = Trainer::new(&test.peft, &[title], AdamConfig::adam(), LR, Schedule::Constant)?;
    let view = test.peft.view(&[title])?;
    let mut start = Start { title, std, grad_a: 0.0, grad_b: 0.0, adam: 0.0, sgd: 0.0, losses: Vec::new() };
    for step in 0..STEPS {
        let loss =
            view.linear(LAYER)?.forward(&test.x, Pass::train())?.f_mse_loss(target, Reduction::Mean)?;
        start.losses.push(trainer.step(&loss)?.loss);
        if step == 0 {
            let (grad_a, grad_b) = (grad("lora_A")?, grad("lora_B")?);
            (start.grad_a, start.grad_b) = (norm(&grad_a)?, norm(&grad_b)?);
            start.adam = norm(&test.delta(title, &lora(R))?)?;
            let b = grad_b.f_mul_scalar(-LR)?;
            start.sgd =
                norm(&LowRank { a: a.shallow_clone(), b, scale: lora(R).scaling(), bias: None }.delta()?)?;
        }
    }
    Ok(start)
}

fn compare(starts: &[Start], page: &mut Page) -> Result<()> {
    let number = |v: f64| if v == 0.0 { "0".to_owned() } else { format!("{v:.2e}") };
    let row = |s: &Start| {
        let last = s.losses.last().copied().unwrap_or(f64::NAN);
        let (std, loss) = (format!("{:.4}", s.std), format!("{last:.2e}"));
        vec![s.title.into(), std, number(s.grad_a), number(s.grad_b), number(s.adam), number(s.sgd), loss]
    };
    let columns = ["start of A", "std of A", "‖∂A‖", "‖∂B‖", "‖ΔW‖, Adam", "‖ΔW‖, SGD", "loss at the end"];
    let title =
        format!("The first step from three starts of A, learning rate {LR}, and {STEPS} steps of Adam");
    page.table(&title, columns, starts.iter().map(row).collect())?;
    for (key, value) in [
        ("starts.std", starts.iter().map(|s| s.std).collect::<Vec<_>>()),
        ("starts.grad_a", starts.iter().map(|s| s.grad_a).collect()),
        ("starts.grad_b", starts.iter().map(|s| s.grad_b).collect()),
        ("starts.adam", starts.iter().map(|s| s.adam).collect()),
        ("starts.sgd", starts.iter().map(|s| s.sgd).collect()),
        ("starts.farther", vec![starts[1].adam / starts[0].adam, starts[1].sgd / starts[0].sgd]),
        ("starts.loss", starts.iter().filter_map(|s| s.losses.last().copied()).collect()),
    ] {
        page.fact(key, value);
    }
    page.fact("starts.losses", starts.iter().map(|s| s.losses.clone()).collect::<Vec<_>>());
    let curve = |s: &Start| series(s.title, (0..).zip(&s.losses).map(|(i, l)| (f64::from(i), *l)).collect());
    let plot = lines("", "step of Adam", "mean squared error", starts.iter().map(curve).collect());
    let title = format!("Learning a change of rank {TARGET} from three starts of A");
    page.figure("depth_lora_starts", Figure { title, rows: vec![vec![Panel::Lines(plot)]], note: None })
}
