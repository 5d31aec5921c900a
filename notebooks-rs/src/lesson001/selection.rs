//! Section 6.3: the lesson's rule for choosing a method, beside the library's, which counts what would be held. And the
//! lesson's key summary, with numbers.

use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::TaskType;
use peft_core::estimate::{Blueprint, Choice, Need, Recommendation, Setup, Storage, recommend};
use peft_core::methods::LoraConfig;
use peft_plot::{Axis, Figure, Lines, Panel, Series};

/// The lesson's `recommend_peft_method`: a model of so many billions, a GPU of so many GB, a task, examples.
pub fn as_written(billions: f64, gpu_gb: f64, task: &str, examples: i64) -> &'static str {
    if gpu_gb < billions * 2.0 {
        return "QLoRA";
    }
    if examples < 1000 {
        return if billions > 10.0 { "Prompt Tuning" } else { "LoRA (small rank)" };
    }
    match task {
        "classification" => "LoRA or Adapters",
        "generation" => "LoRA (target all projections)",
        _ => "LoRA",
    }
}

/// Calls at the rule's edges.
pub const CASES: [(f64, f64, &str, i64); 12] = [
    (7.0, 10.0, "classification", 5000),
    (7.0, 14.0, "classification", 5000),
    (7.0, 13.99, "qa", 100),
    (7.0, 24.0, "classification", 500),
    (13.0, 48.0, "classification", 500),
    (10.0, 48.0, "qa", 999),
    (10.0, 48.0, "qa", 1000),
    (7.0, 24.0, "classification", 5000),
    (7.0, 24.0, "generation", 5000),
    (7.0, 24.0, "qa", 5000),
    (70.0, 80.0, "generation", 100),
    (70.0, 160.0, "generation", 100),
];

/// The library's answer to a case.
pub fn advice((billions, gpu_gb, task, examples): (f64, f64, &str, i64)) -> Result<Recommendation> {
    let task = match task {
        "classification" => TaskType::SeqCls,
        "generation" => TaskType::CausalLm,
        _ => TaskType::QuestionAns,
    };
    let model = Blueprint::about((billions * 1e9) as i64)?;
    Ok(recommend(&model, &Need::new((gpu_gb * 1e9) as i64, task, examples))?)
}

fn gb(bytes: i64) -> String {
    format!("{:.1}", bytes as f64 / 1e9)
}

/// 6.3 Selection Guide, and the key summary.
pub fn run(_: Setting, page: &mut Page) -> Result<()> {
    let mut rows = Vec::new();
    let mut advised = Vec::new();
    for case in CASES {
        let (billions, gpu, task, examples) = case;
        let written = as_written(billions, gpu, task, examples);
        let call = format!("{billions},{gpu},{task},{examples}");
        page.line(format!("{call}: {written}"))?;
        page.fact(&call, written);
        let r = advice(case)?;
        let base = if matches!(r.setup.base, Storage::Nf4 { .. }) { "4 bits" } else { "16 bits" };
        rows.push(vec![
            format!("{billions}B on {gpu} GB, {task}, {examples}"),
            written.to_owned(),
            short(&r.choice),
            base.to_owned(),
            gb(r.estimate.memory.total()),
            format!("{}{}", gb(r.free), if r.fits { "" } else { ", too little" }),
        ]);
        advised.push(r);
    }
    let columns = ["case", "lesson", "library", "base", "holds, GB", "leaves, GB"];
    page.table("The lesson's rule and the library's", columns, rows)?;
    page.figure("unified_selection_memory", figure()?)?;
    page.mistakes(&mistakes(&advised)?)?;
    page.what_to_see(&summary(&advised)?)?;
    Ok(())
}

/// The recommendation of a case.
fn of(advised: &[Recommendation], case: usize) -> Result<&Recommendation> {
    advised.get(case).context("a case")
}

fn mistakes(advised: &[Recommendation]) -> Result<Vec<Mistake>> {
    let edge = of(advised, 1)?;
    let (billions, gpu, task, examples) = CASES[1];
    let weights = 2.0 * billions;
    let few = of(advised, 4)?;
    Ok(vec![
        Mistake::new(
            format!("{billions}B on {gpu} GB passes the memory test"),
            format!(
                "{}: the weights take {weights:.0} of {gpu} GB and leave {:.0} for all else",
                as_written(billions, gpu, task, examples),
                gpu - weights
            ),
            edge.why.last().cloned().unwrap_or_default(),
        ),
        Mistake::new(
            "QLoRA is what there is when memory is short, however short",
            format!(
                "70B on 80 GB: {}; so is 70B on 8 GB: {}",
                as_written(70.0, 80.0, "generation", 100),
                as_written(70.0, 8.0, "generation", 100)
            ),
            advice((70.0, 8.0, "generation", 100))?.why.last().cloned().unwrap_or_default(),
        ),
        Mistake::new(
            "A model above 10B with little data gets prompt tuning",
            format!("13B, 500 examples: {}", as_written(13.0, 48.0, "classification", 500)),
            format!("{}: {}", short(&few.choice), few.why.first().cloned().unwrap_or_default()),
        ),
    ])
}

/// A recommended method in few words.
fn short(choice: &Choice) -> String {
    match choice {
        Choice::Lora(c) => {
            let at = if c.targets.target_modules.is_some() { "all linear layers" } else { "q and v" };
            format!("LoRA, r = {}, {at}", c.r)
        }
        other => other.name(),
    }
}

/// The lesson's practical points, each with what it comes to.
fn summary(advised: &[Recommendation]) -> Result<Vec<String>> {
    let model = Blueprint::about(7_000_000_000)?;
    let weights = |storage: &Storage| -> Result<i64> { Ok(model.weights(storage)?) };
    let (dense, packed) = (Setup::default().base, Storage::qlora());
    let adapter = model.estimate(LoraConfig::default(), &Setup::default())?.memory.adapter;
    Ok(vec![
        format!(
            "GPU shortage → QLoRA: the weights of a 7B model take {} GB in 4 bits and {} in 16.",
            gb(weights(&packed)?),
            gb(weights(&dense)?)
        ),
        "Inference speed critical → merge: a merged LoRA is an ordinary model; prompts and prefixes cannot be merged \
         (`unified_training`)."
            .into(),
        format!(
            "Multiple tasks → an adapter each: LoRA of rank 8 is {:.1} MB a task, beside one base of {} GB.",
            adapter as f64 / 1e6,
            gb(weights(&dense)?)
        ),
        "Large model + small data → prompt tuning: the library says LoRA, and (IA)³ below 100 examples; neither has been measured \
         here on a large model."
            .into(),
        format!(
            "The library keeps a fifth of the device for what it cannot count, activations above all: {} of {} cases need 4 bits.",
            advised.iter().filter(|r| matches!(r.setup.base, Storage::Nf4 { .. })).count(),
            advised.len()
        ),
    ])
}

/// What a LoRA of rank 8 holds by model size, over both bases, and what the lesson's rule takes for it.
fn figure() -> Result<Figure> {
    const SIZES: [f64; 7] = [1.0, 3.0, 7.0, 13.0, 20.0, 30.0, 40.0];
    let held = |storage: Storage| -> Result<Vec<(f64, f64)>> {
        let setup = Setup { base: storage, ..Setup::default() };
        let point = |billions: &f64| -> Result<(f64, f64)> {
            let model = Blueprint::about((billions * 1e9) as i64)?;
            let bytes = model.estimate(LoraConfig::default(), &setup)?.memory.total();
            Ok((model.parameters() as f64 / 1e9, bytes as f64 / 1e9))
        };
        SIZES.iter().map(point).collect()
    };
    let dense = held(Setup::default().base)?;
    let rule = dense.iter().map(|(billions, _)| (*billions, 2.0 * billions)).collect();
    let level = |gb: f64| dense.iter().map(|(billions, _)| (*billions, gb)).collect();
    let series = |name: &str, points| Series { name: name.into(), points, ..Series::default() };
    let markers = |s: Series| Series { markers: true, ..s };
    let lines = Lines {
        title: "LoRA of rank 8 at q and v".into(),
        x: Axis { label: "parameters of the model (billions)".into(), ..Axis::default() },
        y: Axis { label: "memory between two steps (GB)".into(), ..Axis::default() },
        series: vec![
            markers(series("over 16 bits", dense.clone())),
            markers(series("over 4 bits", held(Storage::qlora())?)),
            series("the lesson's rule: 2 GB a billion", rule),
            series("80% of 24 GB", level(0.8 * 24.0)),
            series("80% of 80 GB", level(0.8 * 80.0)),
        ],
    };
    Ok(Figure {
        title: "Which model fits which device".into(),
        rows: vec![vec![Panel::Lines(lines)]],
        note: Some(
            "The lesson's rule is the line over 16 bits: it counts the weights and keeps nothing for activations.".into(),
        ),
    })
}
