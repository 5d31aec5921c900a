//! 1 The Core Mathematical Idea: `h = W₀ x + B A x`, with B `[d, r]` and A `[r, k]`: how many numbers that is, and how close
//! such a product can come to a given ΔW.

use super::spectrum::Spectrum;
use super::transfer::{Steps, Transfer};
use super::{lines, series};
use crate::layers::LayersConfig;
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::Pass;
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_core::train::{AdamConfig, Schedule, Trainer};
use peft_plot::{Figure, Panel, Series};
use tch::{Device, Kind, Reduction, Tensor};

/// The lesson's d and k.
const D: i64 = 4096;
/// The ranks of its two examples.
const R: i64 = 64;
const SMALL: i64 = 4;
const RANKS: [i64; 9] = [1, 4, 8, 16, 64, 256, 1024, 2048, 4096];
/// A real change of weights to look at: that of `ff.0` in a short fine-tuning.
const MATRIX: &str = "ff.0";
const STEPS: Steps = Steps { pretrain: 100, tune: 40 };
/// The ranks it is cut to; steps and learning rate with which a LoRA learns it.
const CUTS: [i64; 6] = [1, 2, 4, 8, 16, 32];
const LEARN: u64 = 400;
const LEARN_LR: f64 = 1e-2;

fn lora(r: i64) -> LoraConfig {
    let targets = ["w"].into();
    LoraConfig { r, lora_alpha: r as f64, targets, ..LoraConfig::default() }
}

/// 1 The Core Mathematical Idea.
pub fn arithmetic(setting: Setting, page: &mut Page) -> Result<()> {
    sizes(page)?;
    let mut transfer = Transfer::new(setting, STEPS, page)?;
    transfer.tune_fully(page)?;
    let change = transfer.change(MATRIX)?;
    closest(&change, page)
}

/// How many parameters, at every rank; shapes alone, no tensor is made.
fn sizes(page: &mut Page) -> Result<()> {
    let blueprint = Blueprint::of(LayersConfig::new(D, 1).linear("w", D, D, false))?;
    let full = blueprint.parameters();
    let count =
        |r: i64| -> Result<i64> { Ok(blueprint.estimate(lora(r), &Setup::default())?.report.trainable) };
    let fewer = |n: i64| 100.0 - 100.0 * n as f64 / full as f64;
    let float = (Kind::Float, Device::Cpu);
    let product = Tensor::f_zeros([D, SMALL], float)?.f_mm(&Tensor::f_zeros([SMALL, D], float)?)?;
    page.line(format!("Full fine-tuning: {D} × {D} = {} parameters", commas(full)))?;
    page.line(format!("LoRA, r = {R}: ({D} + {D}) × {R} = {} parameters", commas(count(R)?)))?;
    page.line(format!("Fewer parameters: {}%", fewer(count(R)?)))?;
    page.line(format!("B ({D} × {SMALL}) times A ({SMALL} × {D}): {:?}", product.size()))?;
    page.fact("full", full);
    page.fact("lora", count(R)?);
    page.fact("fewer", fewer(count(R)?));
    let counts = RANKS.iter().map(|r| count(*r)).collect::<Result<Vec<_>>>()?;
    let rows = RANKS.iter().zip(&counts).map(|(r, n)| {
        let times = full as f64 / *n as f64;
        vec![
            r.to_string(),
            commas(*n),
            format!("{:.3}%", 100.0 - fewer(*n)),
            format!("{:.3}%", fewer(*n)),
            format!("{times:.1}×"),
        ]
    });
    let columns = ["rank r", "(d + k) r", "of d k", "fewer", "d k is"];
    page.table(&format!("LoRA of a {D} × {D} weight"), columns, rows.collect())?;
    page.fact("counts", counts);
    page.mistakes(&[Mistake::new(
        format!("parameters saved at r = {R}"),
        "524K instead of 16.8M: 97 % fewer".to_owned(),
        format!(
            "{} instead of {}: {}% fewer, of one matrix; it is 0% at r = d/2 = {}, and r = d has {}% more",
            commas(count(R)?),
            commas(full),
            fewer(count(R)?),
            D / 2,
            -fewer(count(D)?)
        ),
    )])?;
    Ok(())
}

/// A change cut to a rank, in every way.
struct Cut {
    r: i64,
    /// `‖ΔW − Σ σᵢ uᵢ vᵢᵀ‖`, and what the singular values say it is: `√(Σ_{i > r} σᵢ²)`.
    svd: f64,
    tail: f64,
    /// The closest matrix whose rows lie in r random directions.
    random: f64,
    /// What a LoRA of rank r has learned of it.
    lora: f64,
}

/// How close a product B A comes to a real ΔW, relative to `‖ΔW‖`.
fn closest(change: &Tensor, page: &mut Page) -> Result<()> {
    let spectrum = Spectrum::of(change)?;
    let all = spectrum.values.len();
    let change = change.f_to_kind(Kind::Double)?;
    let scale = spectrum.tail(0);
    let off = |t: &Tensor| -> Result<f64> { Ok(change.f_sub(t)?.f_norm()?.f_double_value(&[])? / scale) };
    let bar = page.progress("LoRAs that learn ΔW", CUTS.len() as u64);
    let mut cuts = Vec::new();
    for r in CUTS {
        cuts.push(Cut {
            r,
            svd: off(&spectrum.cut(r)?)?,
            tail: spectrum.tail(r as usize) / scale,
            random: off(&projected(&change, r)?)?,
            lora: off(&learned(&change, r)?)?,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let whole = off(&spectrum.cut(all as i64)?)?;
    page.fact("sum_error", whole);
    for (key, f) in [
        ("svd", (|c: &Cut| c.svd) as fn(&Cut) -> f64),
        ("tail", |c| c.tail),
        ("random", |c| c.random),
        ("learned", |c| c.lora),
    ] {
        page.fact(key, cuts.iter().map(f).collect::<Vec<_>>());
    }
    let row = |c: &Cut| {
        let mut row = vec![c.r.to_string()];
        row.extend([c.svd, c.tail, c.lora, c.random].map(|v| format!("{v:.4}")));
        row
    };
    let columns = ["rank r", "Σᵢ≤ᵣ σᵢuᵢvᵢᵀ", "√(Σᵢ>ᵣ σᵢ²)", "B A, learned", "r random directions"];
    let (out, inp) = change.size2()?;
    let title = format!(
        "How far from a real ΔW ({MATRIX}, {out} × {inp}, {} steps of fine-tuning), of ‖ΔW‖",
        STEPS.tune
    );
    page.table(&title, columns, cuts.iter().map(row).collect())?;
    picture(&cuts, page)?;
    let four = cuts.iter().find(|c| c.r == SMALL).context("rank 4")?;
    page.what_to_see(&[
        format!("B A is as large as W, and that is all it shares with it: {SMALL} of its {D} rows say all there is."),
        format!("The sum of all {all} terms σᵢ uᵢ vᵢᵀ is ΔW (off by {whole:.0e})."),
        format!(
            "Cut after r terms it is as far off as the rest of the singular values says, and no matrix of rank r is closer \
             (Eckart and Young 1936). At r = {SMALL} that is {:.3}; B and A that are trained to be ΔW come to {:.3}, {SMALL} \
             random directions to {:.3}.",
            four.svd, four.lora, four.random
        ),
        "So LoRA needs no SVD: gradient descent on B and A finds the directions, if the loss asks for them.".into(),
    ])?;
    Ok(())
}

/// The part of M within r random input directions: `M Q Qᵀ`.
fn projected(m: &Tensor, r: i64) -> Result<Tensor> {
    let noise = Tensor::f_randn([m.size2()?.1, r], (Kind::Double, Device::Cpu))?.f_to(m.device())?;
    let q = Tensor::f_linalg_qr(&noise, "reduced")?.0;
    Ok(m.f_mm(&q)?.f_mm(&q.f_tr()?)?)
}

/// The `s · B A` of a LoRA that is trained to make a weight W into W + M: `x = I` shows it all of the weight.
fn learned(m: &Tensor, r: i64) -> Result<Tensor> {
    let (out, inp) = m.size2()?;
    let mut peft = LayersConfig::new(inp, 1).linear("w", inp, out, false).init(m.device())?;
    peft.add("lora", lora(r))?;
    let (view, x) = (peft.view(&["lora"])?, Tensor::f_eye(inp, (Kind::Float, m.device()))?);
    let base = peft.view(&[])?.linear("w")?.forward(&x, Pass::eval())?;
    let target = base.f_add(&m.f_tr()?.f_to_kind(Kind::Float)?)?;
    let schedule = Schedule::Cosine { warmup: 0, total: LEARN };
    let mut trainer = Trainer::new(&peft, &["lora"], AdamConfig::adam(), LEARN_LR, schedule)?;
    for _ in 0..LEARN {
        let y = view.linear("w")?.forward(&x, Pass::train())?;
        trainer.step(&y.f_mse_loss(&target, Reduction::Sum)?)?;
    }
    let y = view.linear("w")?.forward(&x, Pass::eval())?.f_detach()?;
    Ok(y.f_sub(&base)?.f_tr()?.f_to_kind(Kind::Double)?)
}

fn picture(cuts: &[Cut], page: &mut Page) -> Result<()> {
    let curve = |name: &str, f: &dyn Fn(&Cut) -> f64| {
        let points = cuts.iter().map(|c| (c.r as f64, 100.0 * f(c))).collect();
        Series { markers: true, ..series(name, points) }
    };
    let curves = vec![
        curve("truncated SVD: the least there is", &|c| c.svd),
        curve("B A, learned", &|c| c.lora),
        curve("r random directions", &|c| c.random),
    ];
    let mut plot = lines("", "rank r", "distance from ΔW (% of ‖ΔW‖)", curves);
    plot.x.log = true;
    plot.y.range = Some((0.0, 100.0));
    let title = "How close a matrix of rank r comes to ΔW".into();
    page.figure(
        "depth_arithmetic_distance",
        Figure { title, rows: vec![vec![Panel::Lines(plot)]], note: None },
    )
}
