//! Section 6.1: the lesson's table for "a 7B model", recomputed for LLaMA-7B.
//!
//! Each count is a closed formula of the model's sizes and, beside it, what the library makes: a method is attached to a
//! model that has names and shapes and no numbers.

use super::memory::{half, lora, packed, qlora};
use crate::{Mistake, Page, Setting};
use anyhow::{Result, ensure};
use peft_core::estimate::{Blueprint, Memory, Optimizer, Setup};
use peft_core::methods::{BottleneckConfig, Ia3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig};
use peft_core::report::commas;
use peft_core::seam::MethodConfig;
use peft_plot::{Axis, BarGroup, Bars, Figure, Panel};
use tch::Kind;

/// Sizes that the formulas need: width, feed-forward, layers.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    d: i64,
    f: i64,
    l: i64,
}

/// A row of the table.
struct Row {
    name: &'static str,
    /// As the lesson has it: parameters and memory. None where it has no such row.
    claim: Option<(&'static str, &'static str)>,
    method: fn() -> Box<dyn MethodConfig>,
    setup: fn() -> Setup,
    formula: (&'static str, fn(Sizes) -> i64),
}

const ROWS: [Row; 7] = [
    Row {
        name: "LoRA (r=8)",
        claim: Some(("~4M (0.06%)", "~200MB")),
        method: || lora().into(),
        setup: half,
        formula: ("2 L · r (d + d), q and v", |s| 2 * s.l * 8 * (s.d + s.d)),
    },
    Row {
        name: "LoRA (r=64)",
        claim: Some(("~30M (0.4%)", "~1GB")),
        method: || LoraConfig { r: 64, lora_alpha: 128.0, ..lora() }.into(),
        setup: half,
        formula: ("2 L · r (d + d), q and v", |s| 2 * s.l * 64 * (s.d + s.d)),
    },
    Row {
        name: "QLoRA (r=64)",
        claim: Some(("~30M", "~6GB (4bit base)")),
        method: || qlora().into(),
        setup: packed,
        formula: ("L · r (4 (d + d) + 3 (d + f)), all seven", |s| {
            s.l * 64 * (4 * (s.d + s.d) + 3 * (s.d + s.f))
        }),
    },
    Row {
        name: "Prefix Tuning",
        claim: Some(("~1M", "~100MB")),
        method: || PrefixTuningConfig::default().into(),
        setup: half,
        formula: ("n · 2 L d, n = 20", |s| 20 * 2 * s.l * s.d),
    },
    Row {
        name: "Prompt Tuning",
        claim: Some(("~100K", "~10MB")),
        method: || PromptTuningConfig::default().into(),
        setup: half,
        formula: ("n d, n = 20", |s| 20 * s.d),
    },
    Row {
        name: "IA³",
        claim: Some(("~300K", "~30MB")),
        method: || Ia3Config::default().into(),
        setup: half,
        formula: ("L (d + d + f), k, v and the FFN", |s| s.l * (s.d + s.d + s.f)),
    },
    Row {
        name: "Adapters (64)",
        claim: None,
        method: || BottleneckConfig { bottleneck_size: 64, ..BottleneckConfig::default() }.into(),
        setup: half,
        formula: ("2 L (2 · 64 d + 64 + d), two a layer", |s| 2 * s.l * (2 * 64 * s.d + 64 + s.d)),
    },
];

/// What a row comes to.
struct Counted {
    row: &'static Row,
    trainable: i64,
    memory: Memory,
}

fn count(llama: &Blueprint, sizes: Sizes, row: &'static Row) -> Result<Counted> {
    let estimate = llama.estimate((row.method)(), &(row.setup)())?;
    let (formula, trainable) = ((row.formula.1)(sizes), estimate.report.trainable);
    ensure!(
        formula == trainable,
        "{}: {} is {formula}, and {trainable} are trained",
        row.name,
        row.formula.0
    );
    Ok(Counted { row, trainable, memory: estimate.memory })
}

fn mb(bytes: i64) -> String {
    match bytes {
        ..=9_999_999 => format!("{:.1}MB", bytes as f64 / 1e6),
        10_000_000..=999_999_999 => format!("{:.0}MB", bytes as f64 / 1e6),
        _ => format!("{:.2}GB", bytes as f64 / 1e9),
    }
}

/// 6.1 Parameter Efficiency.
pub fn run(_: Setting, page: &mut Page) -> Result<()> {
    let llama = super::llama()?;
    let dims = &llama.outline().dims;
    let f = llama.outline().sites.iter().find(|s| s.name.ends_with("up_proj")).map(|s| s.shape[0]);
    let sizes = Sizes { d: dims.sizes()?.hidden, f: f.unwrap_or_default(), l: dims.sizes()?.layers };
    let counted = ROWS.iter().map(|row| count(&llama, sizes, row)).collect::<Result<Vec<_>>>()?;
    let all = llama.parameters();
    let share = |n: i64| 100.0 * n as f64 / all as f64;

    let of = format!("of {:.3}B", all as f64 / 1e9);
    page.line(format!("{:<14} {:>14} {of:>9} {:>9}", "Method", "Trainable", "Memory"))?;
    let full = Memory::in_place(all, Kind::Half, Optimizer::AdamF32)?;
    page.line(format!("{:<14} {:>14} {:>9} {:>9}", "Full FT", commas(all), "100%", mb(full.total())))?;
    for c in &counted {
        let (trainable, percent) = (commas(c.trainable), format!("{:.4}%", share(c.trainable)));
        page.line(format!("{:<14} {trainable:>14} {percent:>9} {:>9}", c.row.name, mb(memory(c))))?;
        page.fact(c.row.name, c.trainable);
    }
    page.fact("parameters", all);
    let rows = counted.iter().map(|c| {
        let (parameters, memory) = c.row.claim.unwrap_or(("missing", "missing"));
        [c.row.name, parameters, &commas(c.trainable), memory, &mb(self::memory(c)), c.row.formula.0]
            .map(str::to_owned)
            .to_vec()
    });
    let columns = ["method", "lesson", "LLaMA-7B", "lesson's memory", "counted", "formula"];
    page.table("The lesson's figures and the computed ones", columns, rows.collect())?;
    page.figure("unified_parameters_counts", figure(&counted, all))?;
    page.mistakes(&mistakes(&llama, &counted)?)?;
    let find = |name: &str| counted.iter().find(|c| c.row.name == name).map_or(0, |c| c.trainable);
    page.what_to_see(&[
        format!(
            "From the prompt to QLoRA of all linear layers the counts differ by a factor of {}.",
            commas(find("QLoRA (r=64)") / find("Prompt Tuning").max(1))
        ),
        "Memory is what a method adds to the frozen weights: the adapter in f32, as much for gradients, twice that for Adam; \
         for QLoRA the packed weights as well, as in the lesson's row. Activations are not counted."
            .into(),
        "A rank or a number of tokens alone fixes nothing: the targets do, and the model's sizes.".into(),
        "Hugging Face PEFT 0.21.2, asked on the same model, counts the same in every row that it has.".into(),
    ])?;
    Ok(())
}

/// What the lesson's memory column means: what is added, and over a base in 4 bits all of it.
fn memory(c: &Counted) -> i64 {
    match c.row.name.starts_with('Q') {
        true => c.memory.total(),
        false => c.memory.overhead(),
    }
}

fn mistakes(llama: &Blueprint, counted: &[Counted]) -> Result<Vec<Mistake>> {
    let estimate = |method: Box<dyn MethodConfig>| -> Result<i64> {
        Ok(llama.estimate(method, &half())?.report.trainable)
    };
    let trainable = |name: &str| counted.iter().find(|c| c.row.name == name).map_or(0, |c| c.trainable);
    let share = |n: i64| format!("{:.2}%", 100.0 * n as f64 / llama.parameters() as f64);
    let r64 = trainable("LoRA (r=64)");
    let qlora = trainable("QLoRA (r=64)");
    let (d, l) = (llama.outline().dims.sizes()?.hidden, llama.outline().dims.sizes()?.layers);
    let ten =
        estimate(PrefixTuningConfig { num_virtual_tokens: 10, ..PrefixTuningConfig::default() }.into())?;
    Ok(vec![
        Mistake::new("LoRA (r=64)", "~30M (0.4%)", format!("{} ({})", commas(r64), share(r64))),
        Mistake::new(
            "QLoRA (r=64) has seven targets in the lesson's own setup_qlora",
            "~30M, as LoRA with two",
            format!("{} ({})", commas(qlora), share(qlora)),
        ),
        Mistake::new(
            "Prefix Tuning",
            "~1M",
            format!(
                "{} for the 20 tokens of section 5, {} for 10; with section 4.1's network far more in training: \
                 `unified_prefix`",
                commas(trainable("Prefix Tuning")),
                commas(ten)
            ),
        ),
        Mistake::new(
            "Prompt Tuning",
            "~100K",
            format!("{} for 20 tokens", commas(trainable("Prompt Tuning"))),
        ),
        Mistake::new(
            "IA³",
            format!(
                "~300K; the class of section 3.2 has {}, because its l_ff is as wide as the model",
                commas(3 * d * l)
            ),
            format!("{}, with l_ff as wide as the feed-forward layer", commas(trainable("IA³"))),
        ),
        Mistake::new(
            "Adapters are not in the table",
            "missing",
            format!("{} of width 64", commas(trainable("Adapters (64)"))),
        ),
    ])
}

fn figure(counted: &[Counted], all: i64) -> Figure {
    let mut order: Vec<&Counted> = counted.iter().collect();
    order.sort_by_key(|c| c.trainable);
    let labels = order.iter().map(|c| format!("{:.2}M", c.trainable as f64 / 1e6)).collect();
    let bars = Bars {
        title: format!("What the library trains in LLaMA-7B ({} parameters)", commas(all)),
        categories: order.iter().map(|c| c.row.name.replace(" (", "\n(").replace(" T", "\nT")).collect(),
        x: String::new(),
        y: Axis { label: "trainable parameters".into(), log: true, range: Some((1e4, 1e9)) },
        groups: vec![BarGroup {
            name: "trainable".into(),
            values: order.iter().map(|c| c.trainable as f64).collect(),
            errors: None,
            labels: Some(labels),
        }],
    };
    Figure {
        title: "Trainable parameters by method".into(),
        rows: vec![vec![Panel::Bars(bars)]],
        note: Some(
            "LoRA at q and v, QLoRA at all seven linear layers, 20 virtual tokens, adapters of width 64."
                .into(),
        ),
    }
}
