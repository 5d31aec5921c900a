//! How many parameters a rank costs, and what it can express.

use super::lora::config;
use super::measure::linear;
use crate::layers::LayersConfig;
use crate::measure::{norm, randn, row, small};
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_core::train::{AdamConfig, Schedule, Trainer};
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use tch::{Device, Kind, Tensor};

/// The lesson's example.
pub const EXAMPLE: i64 = 4096;
/// Of the experiment: inputs, outputs, rank of the change to be learned, ranks that try, steps and learning rate.
const K: i64 = 64;
const D: i64 = 48;
const TRUE_RANK: i64 = 4;
const RANKS: [i64; 4] = [1, 2, 4, 8];
const STEPS: u64 = 300;
const LR: f64 = 2e-2;

/// `r (d + k)`
pub fn lora(r: i64, d: i64, k: i64) -> i64 {
    r * (d + k)
}

/// The example d = k = 4096, at the lesson's rank and at others.
pub fn example(page: &mut Page) -> Result<()> {
    let full = EXAMPLE * EXAMPLE;
    let ranks = [1, config(&[]).r, 64, 256, EXAMPLE / 2, EXAMPLE];
    let rows = ranks.map(|r| {
        let n = lora(r, EXAMPLE, EXAMPLE);
        row([&format!("r = {r}"), &commas(n), &format!("{:.3}", 100.0 * n as f64 / full as f64)])
    });
    let title = format!("LoRA at d = k = {EXAMPLE}, where W has {} parameters", commas(full));
    page.table(&title, ["rank", "r (d + k)", "% of d k"], rows.to_vec())?;
    page.fact("example.full", full);
    page.fact("example.lora", lora(config(&[]).r, EXAMPLE, EXAMPLE));
    Ok(())
}

/// Trains LoRAs of several ranks towards a change of rank 4. The inputs are the unit vectors, so that the loss is the
/// distance of the weights; the best that rank r can do is the singular values beyond the r-th (Eckart and Young).
pub fn fit(setting: Setting, page: &mut Page) -> Result<String> {
    tch::manual_seed(setting.seed);
    let [b, a] = [randn(&[D, TRUE_RANK], setting.device)?, randn(&[TRUE_RANK, K], setting.device)?];
    let change = b.f_mm(&a)?.f_mul_scalar(0.1)?;
    let values =
        Vec::<f64>::try_from(change.f_svd(true, true)?.1.f_to_kind(Kind::Double)?.f_to(Device::Cpu)?)?;
    let size = norm(&change)?;
    let beyond = |r: i64| values.iter().skip(r as usize).map(|v| v * v).sum::<f64>().sqrt() / size;

    let mut peft = LayersConfig::new(K, 1).linear("linear", K, D, true).init(setting.device)?;
    let x = Tensor::f_eye(K, (Kind::Float, setting.device))?;
    let wanted = linear(&peft, &[], "linear", &x)?.f_add(&change.f_tr()?)?;
    let (mut rows, mut series) = (Vec::new(), Vec::new());
    let mut last = Vec::new();
    for r in RANKS {
        let name = format!("r = {r}");
        peft.add(&name, LoraConfig { r, lora_alpha: r as f64, ..config(&["linear"]) })?;
        let count = peft.report(&[&name])?.trainable;
        let mut trainer = Trainer::new(
            &peft,
            &[&name],
            AdamConfig::adam(),
            LR,
            Schedule::Cosine { warmup: 0, total: STEPS },
        )?;
        let mut points = Vec::new();
        for step in 0..=STEPS {
            let squares =
                linear(&peft, &[&name], "linear", &x)?.f_sub(&wanted)?.f_square()?.f_sum(Kind::Float)?;
            points.push((step as f64, squares.f_double_value(&[])?.sqrt() / size));
            if step < STEPS {
                trainer.step(&squares)?;
            }
        }
        let off = points.last().map_or(f64::NAN, |p| p.1);
        rows.push(row([&name, &commas(count), &format!("{off:.3}"), &format!("{:.3}", beyond(r))]));
        page.fact(&format!("rank.{r}.off"), off);
        page.fact(&format!("rank.{r}.best"), beyond(r));
        last.push(off);
        series.push(Series { name, points, ..Series::default() });
    }
    page.table(
        &format!("A change of rank {TRUE_RANK}, learned by LoRA in {STEPS} steps: ‖ΔW − s B A‖ / ‖ΔW‖"),
        ["rank", "parameters", "found", "best possible"],
        rows,
    )?;
    page.figure("unified_lora", figure(series))?;
    Ok(format!(
        "A rank is enough once it is that of the change. Here that is {TRUE_RANK}: it misses {}, rank 2 misses {:.0} %, as the \
         singular values say, and rank 8 gains nothing.",
        small(last.get(2).copied().unwrap_or(f64::NAN)),
        100.0 * last.get(1).copied().unwrap_or(f64::NAN),
    ))
}

fn figure(series: Vec<Series>) -> Figure {
    let ranks = (0..=12).map(|i| 1i64 << i);
    let curve = |name: &str, f: &dyn Fn(i64) -> i64| Series {
        name: name.into(),
        points: ranks.clone().map(|r| (r as f64, f(r) as f64 / 1e6)).collect(),
        ..Series::default()
    };
    let counts = Lines {
        title: format!("Parameters of a change, d = k = {EXAMPLE}"),
        x: Axis { label: "rank r".into(), log: true, range: None },
        y: Axis { label: "parameters (millions)".into(), log: true, range: None },
        series: vec![
            curve("LoRA: r (d + k)", &|r| lora(r, EXAMPLE, EXAMPLE)),
            curve("full: d k", &|_| EXAMPLE * EXAMPLE),
        ],
    };
    let learned = Lines {
        title: format!("Learning a change of rank {TRUE_RANK}"),
        x: Axis { label: "step".into(), ..Axis::default() },
        y: Axis { label: "‖ΔW − s B A‖ / ‖ΔW‖".into(), ..Axis::default() },
        series,
    };
    Figure {
        title: "LoRA: what a rank costs, and what it can express".into(),
        rows: vec![vec![Panel::Lines(counts), Panel::Lines(learned)]],
        note: Some(format!(
            "W is {D} × {K} on the right; LoRA costs as much as W at r = d k / (d + k) = {}.",
            EXAMPLE / 2
        )),
    }
}
