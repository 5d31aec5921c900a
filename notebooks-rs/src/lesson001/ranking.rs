//! Section 6.2: the lesson's ranking, beside one that is measured on real text.

use super::catalogue::{self, Arguments, Warmup};
use super::text::Text;
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::Peft;
use peft_core::methods::{
    BottleneckConfig, FullConfig, LoraConfig, PrefixTuningConfig, PromptInit, PromptTuningConfig,
};
use peft_core::quant::Nf4Config;
use peft_core::report::commas;
use peft_core::seam::MethodConfig;
use peft_plot::{Axis, Figure, Panel, Point, Points};
use tch::Kind;

/// The lesson's line.
pub const CLAIM: &str = "Full FT > LoRA ≈ QLoRA > Adapters > Prefix > Prompt";

/// A method of the line, with a rate that was chosen on another seed.
struct Entry {
    name: &'static str,
    lr: f64,
    /// Over a base in 4 bits.
    nf4: bool,
    method: fn() -> Box<dyn MethodConfig>,
}

const ENTRIES: [Entry; 6] = [
    Entry { name: "Full FT", lr: 5e-3, nf4: false, method: || FullConfig::default().into() },
    Entry { name: "LoRA", lr: 3e-3, nf4: false, method: lora },
    Entry { name: "QLoRA", lr: 5e-3, nf4: true, method: lora },
    Entry { name: "Adapters", lr: 5e-3, nf4: false, method: adapters },
    Entry { name: "Prefix", lr: 1e-1, nf4: false, method: || PrefixTuningConfig::default().into() },
    Entry { name: "Prompt", lr: 1e-1, nf4: false, method: prompt },
];

/// Rank 16 at the attention, as in section 5.
fn lora() -> Box<dyn MethodConfig> {
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj"].into();
    LoraConfig { r: 16, lora_alpha: 32.0, targets, ..LoraConfig::default() }.into()
}

fn adapters() -> Box<dyn MethodConfig> {
    BottleneckConfig { bottleneck_size: 16, ..BottleneckConfig::default() }.into()
}

fn prompt() -> Box<dyn MethodConfig> {
    PromptTuningConfig { prompt_tuning_init: PromptInit::SampleVocab, ..PromptTuningConfig::default() }.into()
}

/// Rows that are trained on, and how.
const ROWS: usize = 960;
const ARGUMENTS: Arguments =
    Arguments { epochs: 2, batch: 16, accumulation: 1, lr: 0.0, warmup: Warmup::Tenth };

/// How a method did.
struct Measured {
    name: &'static str,
    trainable: i64,
    right: i64,
    /// Share of the test rows that are right in percent, and its standard error.
    percent: f64,
    error: f64,
}

/// 6.2 Performance Comparison.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let (text, base) = catalogue::read(setting, page)?;
    let bar = page.progress("methods", ENTRIES.len() as u64);
    let mut measured = Vec::new();
    for entry in &ENTRIES {
        measured.push(measure(entry, &base, &text)?);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let tests = text.test.len() as i64;
    let mut rows = Vec::new();
    for (m, entry) in measured.iter().zip(&ENTRIES) {
        page.fact(&format!("{}.right", m.name), m.right);
        page.fact(&format!("{}.trainable", m.name), m.trainable);
        let percent = format!("{:.1} ± {:.1}%", m.percent, m.error);
        let right = format!("{} of {tests}", m.right);
        rows.push(vec![m.name.to_owned(), commas(m.trainable), entry.lr.to_string(), right, percent]);
    }
    page.line(CLAIM)?;
    let columns = ["method", "trainable", "learning rate", "test rows right", "share, ± its standard error"];
    page.table("The section of a package from its description, one run each", columns, rows)?;
    let order = order(measured.iter().map(|m| (m.name, m.percent, m.error)).collect());
    page.fact("order", order.clone());
    let guess = 100.0 / text.sections as f64;
    page.figure("unified_ranking_accuracy", figure(&measured, guess))?;
    page.mistakes(&[Mistake::new(
        "A ranking without a task, a model, a budget or an error",
        CLAIM,
        format!("here, where ≈ is within two standard errors: {order}"),
    )])?;
    page.what_to_see(&[
        format!(
            "One seed, {} updates of {} rows, a model of {} parameters: a measurement, not a law. Guessing gives {guess:.1}%.",
            ARGUMENTS.epochs * ARGUMENTS.steps(ROWS),
            ARGUMENTS.batch,
            commas(base.report(&[])?.all)
        ),
        "LoRA and QLoRA train the same adapter, the one over f32 and the other over the same base in 4 bits.".into(),
        "Rates were chosen on another seed. A method's place depends on its rate as much as on the method.".into(),
        "More seeds, and all methods of the library, on a task made to tell them apart: `cargo run --release -p peft-bench`."
            .into(),
        "The lesson's \"large models: prompt tuning is also effective\" cannot be seen in a model of this size.".into(),
    ])?;
    Ok(())
}

fn measure(entry: &Entry, base: &Peft, text: &Text) -> Result<Measured> {
    let mut peft =
        if entry.nf4 { base.quantised(&Nf4Config::default())? } else { base.to_kind(Kind::Float)? };
    peft.add("mine", (entry.method)())?;
    let trainable = peft.report(&["mine"])?.trainable;
    let args = Arguments { lr: entry.lr, ..ARGUMENTS };
    catalogue::train(&peft, "mine", (text, &text.train[..ROWS]), &args, |_| Ok(()))?;
    let right = catalogue::correct(&peft, &["mine"], text)?;
    let (n, p) = (text.test.len() as f64, right as f64 / text.test.len() as f64);
    let error = 100.0 * (p * (1.0 - p) / n).sqrt();
    Ok(Measured { name: entry.name, trainable, right, percent: 100.0 * p, error })
}

/// The methods from best to worst, in the lesson's notation: `≈` between neighbours that two standard errors of their
/// difference do not part.
pub fn order(mut all: Vec<(&str, f64, f64)>) -> String {
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut line = String::new();
    let mut last: Option<(f64, f64)> = None;
    for (name, percent, error) in all {
        if let Some((before, its)) = last {
            let apart = before - percent > 2.0 * f64::hypot(its, error);
            line += if apart { " > " } else { " ≈ " };
        }
        line += name;
        last = Some((percent, error));
    }
    line
}

fn figure(all: &[Measured], guess: f64) -> Figure {
    let points = all.iter().map(|m| Point {
        label: m.name.into(),
        x: m.trainable as f64,
        y: m.percent,
        error: Some(m.error),
        area: 1.0,
    });
    Figure {
        title: "What a trained parameter buys".into(),
        rows: vec![vec![Panel::Points(Points {
            title: "Section of a package from its description".into(),
            x: Axis { label: "trainable parameters".into(), log: true, range: None },
            y: Axis { label: "test rows right (%)".into(), ..Axis::default() },
            points: points.collect(),
            area: None,
        })]],
        note: Some(format!("Bars are standard errors of one run; guessing gives {guess:.1}%.")),
    }
}
