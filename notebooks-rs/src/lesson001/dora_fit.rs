//! LoRA and DoRA on one task: how the lengths and the directions of the rows move.

use super::dora::{dora, weight};
use super::lora::config;
use super::measure::linear;
use crate::layers::LayersConfig;
use crate::measure::{randn, row};
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_core::seam::PREFIX;
use peft_core::train::{AdamConfig, Schedule, Trainer};
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use tch::{Kind, Tensor};

const K: i64 = 64;
const D: i64 = 48;
const RANK: i64 = 2;
const STEPS: u64 = 300;
/// Steps between two points of a path.
const STRIDE: u64 = 20;
const LR: f64 = 1e-2;

/// Mean change of the rows' lengths and of their directions, `mean |‖w'ᵢ‖ − ‖wᵢ‖|` and `mean (1 − cos(w'ᵢ, wᵢ))`, as in the
/// paper's section 3.2.
fn moved(new: &Tensor, old: &Tensor) -> Result<(f64, f64)> {
    let norms = |w: &Tensor| w.f_norm_scalaropt_dim(2, 1, false);
    let (long, was) = (norms(new)?, norms(old)?);
    let cosine = new.f_mul(old)?.f_sum_dim_intlist(1, false, Kind::Float)?.f_div(&long.f_mul(&was)?)?;
    let mean = |t: Tensor| -> Result<f64> { Ok(t.f_mean(Kind::Float)?.f_double_value(&[])?) };
    Ok((mean(cosine.f_neg()?.f_add_scalar(1.0)?)?, mean(long.f_sub(&was)?.f_abs()?)?))
}

/// The task: rows that are longer or shorter than W's by up to a half, turned by a change of rank 2. The inputs are the
/// unit vectors, so the loss is the distance of the weights.
pub fn run(setting: Setting, page: &mut Page) -> Result<String> {
    tch::manual_seed(setting.seed);
    let device = setting.device;
    let mut peft = LayersConfig::new(K, 1).linear("linear", K, D, true).init(device)?;
    let old = weight(&peft, &[], "linear")?;
    let turn = randn(&[D, RANK], device)?.f_mm(&randn(&[RANK, K], device)?)?.f_mul_scalar(0.02)?;
    let longer = randn(&[D, 1], device)?.f_tanh()?.f_mul_scalar(0.5)?.f_add_scalar(1.0)?;
    let goal = old.f_add(&turn)?.f_mul(&longer)?;
    let x = Tensor::f_eye(K, (Kind::Float, device))?;
    let wanted = x.f_linear(&goal, None::<&Tensor>)?;
    let bias = peft.base().tensors()["linear.bias"].shallow_clone();

    let r = |c: LoraConfig| LoraConfig { r: RANK, lora_alpha: RANK as f64, ..c };
    peft.add("LoRA", r(config(&["linear"])))?;
    peft.add("DoRA", r(dora(&["linear"])))?;
    peft.add("DoRA, m = 1 at the start", r(dora(&["linear"])))?;
    let ones = Tensor::f_ones([D], (Kind::Float, device))?;
    let magnitude = format!("{PREFIX}linear.lora_magnitude_vector");
    peft.params("DoRA, m = 1 at the start")?.assign(&magnitude, &ones)?;

    let size = goal.f_sub(&old)?.f_square()?.f_sum(Kind::Float)?.f_double_value(&[])?;
    let (mut losses, mut paths, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for name in ["LoRA", "DoRA", "DoRA, m = 1 at the start"] {
        let schedule = Schedule::Cosine { warmup: 0, total: STEPS };
        let mut trainer = Trainer::new(&peft, &[name], AdamConfig::adam(), LR, schedule)?;
        let (mut loss, mut path) = (Vec::new(), Vec::new());
        for step in 0..=STEPS {
            let y = linear(&peft, &[name], "linear", &x)?.f_sub(&bias)?;
            let squares = y.f_sub(&wanted)?.f_square()?.f_sum(Kind::Float)?;
            loss.push((step as f64, squares.f_double_value(&[])? / size));
            if step % STRIDE == 0 {
                path.push(moved(&weight(&peft, &[name], "linear")?, &old)?);
            }
            if step < STEPS {
                trainer.step(&squares)?;
            }
        }
        let at = |i: usize| loss.get(i).map_or(f64::NAN, |p| p.1);
        let (first, last) = (at(0), at(STEPS as usize));
        let (turned, longer) = path.last().copied().unwrap_or_default();
        let count = peft.report(&[name])?.trainable;
        rows.push(row([
            &name,
            &commas(count),
            &format!("{first:.3}"),
            &format!("{last:.3}"),
            &format!("{turned:.4}"),
            &format!("{longer:.4}"),
        ]));
        page.fact(&format!("fit.{name}"), vec![first, last, turned, longer]);
        losses.push(Series { name: name.into(), points: loss, ..Series::default() });
        paths.push(Series { name: name.into(), points: path, markers: true, ..Series::default() });
    }
    let (turned, longer) = moved(&goal, &old)?;
    page.fact("fit.goal", vec![turned, longer]);
    let goal =
        [&"the goal" as &dyn ToString, &"", &"", &"", &format!("{turned:.4}"), &format!("{longer:.4}")];
    rows.push(row(goal));
    page.table(
        &format!("Rows to be turned and made longer or shorter, {STEPS} steps at rank {RANK}"),
        ["method", "parameters", "loss before", "loss after", "direction moved", "length moved"],
        rows,
    )?;
    let last = |name: &str| page.facts()[&format!("fit.{name}")][1].as_f64().unwrap_or(f64::NAN);
    let text = format!(
        "The goal is of DoRA's own form: where rows change their lengths one by one, {D} magnitudes are worth more than a \
         rank. DoRA leaves {:.1} % of the change, LoRA of the same rank {:.1} %. Started at m = 1 it first has to find the \
         lengths again.",
        100.0 * last("DoRA"),
        100.0 * last("LoRA")
    );
    paths.push(Series {
        name: "the goal".into(),
        points: vec![(turned, longer)],
        markers: true,
        ..Series::default()
    });
    page.figure("unified_dora", figure(losses, paths))?;
    Ok(text)
}

fn figure(losses: Vec<Series>, paths: Vec<Series>) -> Figure {
    let loss = Lines {
        title: "Loss".into(),
        x: Axis { label: "step".into(), ..Axis::default() },
        y: Axis { label: "‖W' − goal‖² / ‖W − goal‖²".into(), log: true, range: None },
        series: losses,
    };
    let path = Lines {
        title: format!("How the rows of W move, every {STRIDE} steps"),
        x: Axis { label: "direction: mean 1 − cos(w', w)".into(), ..Axis::default() },
        y: Axis { label: "length: mean |‖w'‖ − ‖w‖|".into(), ..Axis::default() },
        series: paths,
    };
    Figure {
        title: "DoRA: length and direction apart".into(),
        rows: vec![vec![Panel::Lines(loss), Panel::Lines(path)]],
        note: Some(format!(
            "W is {D} × {K}, the rank {RANK}; the goal is a turn of rank {RANK} and lengths of their own."
        )),
    }
}
