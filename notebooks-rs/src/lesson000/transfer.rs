//! Section 2.6, continued: a task on which the methods separate.
//!
//! A model of the lesson's size is pre-trained on two tasks and adapted to a third, a blend of the two with some of its
//! vocabulary and one of its rules changed (`peft_bench::synthetic`). Each method trains at its own learning rate, over
//! several seeds: one seed's order may be luck.

use crate::{Page, Setting};
use anyhow::{Context, Result, bail};
use peft_bench::cases::Case;
use peft_bench::figures;
use peft_bench::record::Message;
use peft_bench::results::{Difference, Results, Summary, UNADAPTED};
use peft_bench::sweep::{On, Place, SCRATCH, Sweep};
use peft_bench::synthetic::PRETRAIN_STEPS;
use peft_core::report::commas;
use tch::Device;

/// The lesson's methods, DoRA, and prefix tuning as published: the benchmark's name, and a reader's.
const METHODS: [(&str, &str); 7] = [
    ("full", "Full Fine-Tune"),
    ("lora", "LoRA"),
    ("dora", "DoRA"),
    ("adapter", "Adapter"),
    ("prefix", "Prefix Tuning"),
    ("hidden-prefix", "Prefix, the lesson's"),
    ("prompt", "Prompt Tuning"),
];

/// What the methods are held against.
const REFERENCES: [(&str, &str); 2] = [(SCRATCH, "Fresh model"), (UNADAPTED, "Base as it is")];

/// Pairs whose difference is looked at seed by seed.
const PAIRS: [(&str, &str); 8] = [
    ("full", "lora"),
    ("lora", "dora"),
    ("lora", "adapter"),
    ("adapter", "prefix"),
    ("prefix", "hidden-prefix"),
    ("hidden-prefix", "prompt"),
    ("prompt", UNADAPTED),
    ("full", SCRATCH),
];

const SEEDS: i64 = 3;

/// The whole task: every method over three seeds.
pub fn task(setting: Setting) -> Result<Sweep> {
    let cases = METHODS.iter().map(|(name, _)| Case::find(name)).collect::<Result<Vec<_>>>()?;
    let seeds = (setting.seed..setting.seed + SEEDS).collect();
    let device = match setting.device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    };
    let on = On::Synthetic { pretrain_steps: PRETRAIN_STEPS, scratch: true };
    Ok(Sweep { on, device, ..Sweep::synthetic(cases, seeds) })
}

fn title(method: &str) -> Result<&'static str> {
    let known = METHODS.iter().chain(&REFERENCES).find(|(name, _)| *name == method);
    Ok(known.with_context(|| format!("no method `{method}`"))?.1)
}

/// Runs the task, shows its tables and figures, and says what to see.
pub fn transfer(task: &Sweep, page: &mut Page) -> Result<Vec<String>> {
    let results = run(task, page)?;
    let summaries = results.summaries();
    record(&summaries, &results, page);
    methods(&summaries, &results, page)?;
    differences(&results, page)?;
    pictures(&summaries, &results, page)?;
    to_see(&summaries, &results)
}

fn run(task: &Sweep, page: &Page) -> Result<Results> {
    let bar = page.progress("a task that transfers", task.steps().unwrap_or_default());
    let mut done = std::collections::BTreeMap::new();
    let results = task.run(Place::fastest(), |job, message| {
        match message {
            Message::Progress(steps, _) => {
                done.insert(job.index, *steps);
                bar.set_position(done.values().sum());
                bar.set_message(job.title());
            }
            Message::Failed(why) => bail!("{}: {why}", job.title()),
            _ => {}
        }
        Ok(())
    });
    bar.finish_and_clear();
    results
}

fn record(summaries: &[Summary], results: &Results, page: &mut Page) {
    page.fact("transfer.seeds", results.bases.keys().copied().collect::<Vec<_>>());
    let own = results.bases.values().map(|base| 100.0 * base.own);
    page.fact("transfer.base_on_its_own_tasks", own.collect::<Vec<_>>());
    let accuracies = |method: &str| results.accuracies(method).into_values().collect::<Vec<_>>();
    page.fact("transfer.unadapted.accuracy", accuracies(UNADAPTED));
    for s in summaries {
        page.fact(&format!("transfer.{}.trainable", s.method), s.trainable);
        page.fact(&format!("transfer.{}.lr", s.method), s.lr);
        page.fact(&format!("transfer.{}.loss", s.method), s.loss.mean);
        page.fact(&format!("transfer.{}.accuracy", s.method), accuracies(s.method));
    }
}

fn methods(summaries: &[Summary], results: &Results, page: &mut Page) -> Result<()> {
    let base = results.bases.values().next().context("no base")?.parameters;
    let row = |s: &Summary| {
        Ok(vec![
            title(s.method)?.into(),
            commas(s.trainable),
            format!("{:.2}%", 100.0 * s.trainable as f64 / base as f64),
            s.lr.to_string(),
            s.accuracy.to_string(),
            format!("{:.3}", s.loss.mean),
        ])
    };
    let mut rows = summaries.iter().map(row).collect::<Result<Vec<_>>>()?;
    let unadapted = results.unadapted().context("no base")?.to_string();
    rows.push([title(UNADAPTED)?, "0", "0.00%", "", &unadapted, ""].map(String::from).to_vec());
    let heading =
        format!("On a task that transfers: {} seeds, mean ± standard deviation", results.bases.len());
    let columns = ["method", "trainable", "% of base", "learning rate", "test accuracy, %", "train loss"];
    Ok(page.table(&heading, columns, rows)?)
}

fn differences(results: &Results, page: &mut Page) -> Result<()> {
    let mut rows = Vec::new();
    for (one, other) in PAIRS {
        let d = results.difference(one, other).context("a method without a run")?;
        rows.push(vec![
            format!("{} − {}", title(one)?, title(other)?),
            points(&d),
            format!("{} of {}", d.better, d.seeds),
        ]);
    }
    let heading = "On the same seed: points of accuracy, mean ± standard error";
    Ok(page.table(heading, ["difference", "points", "seeds where it is positive"], rows)?)
}

/// `+4.2 ± 0.8`
fn points(d: &Difference) -> String {
    match d.error {
        Some(error) => format!("{:+.1} ± {error:.1}", d.mean),
        None => format!("{:+.1}", d.mean),
    }
}

fn pictures(summaries: &[Summary], results: &Results, page: &mut Page) -> Result<()> {
    let named = |s: &Summary| Ok(Summary { method: title(s.method)?, ..s.clone() });
    let mut summaries = summaries.iter().map(named).collect::<Result<Vec<_>>>()?;
    page.figure("comparison_accuracy", figures::accuracy(&summaries, results.unadapted()))?;
    // A fresh model's losses say nothing of a method.
    summaries.retain(|s| METHODS.iter().any(|(_, title)| *title == s.method));
    page.figure("comparison_losses", figures::losses(&summaries))
}

fn to_see(summaries: &[Summary], results: &Results) -> Result<Vec<String>> {
    let mut order: Vec<&Summary> = summaries.iter().filter(|s| s.method != SCRATCH).collect();
    order.sort_by(|a, b| b.accuracy.mean.total_cmp(&a.accuracy.mean));
    let named = |s: &&Summary| Ok(format!("{} {:.1}", title(s.method)?, s.accuracy.mean));
    let order = order.iter().map(named).collect::<Result<Vec<_>>>()?.join(", ");
    let difference = |one, other| results.difference(one, other).context("a method without a run");
    let widest = summaries.iter().filter_map(|s| s.accuracy.deviation).reduce(f64::max);
    let lr = |method: &str| summaries.iter().find(|s| s.method == method).map(|s| s.lr).context("no run");
    let mut lines = vec![
        format!("On the task that transfers, from the best: {order}."),
        format!(
            "Full fine-tuning of the pre-trained base against that of a fresh model: {} points. That much the base knew \
             already; without any training it gets {:.1}%.",
            points(&difference("full", SCRATCH)?),
            results.unadapted().context("no base")?.mean
        ),
        format!(
            "Learning rates are each method's own: the prompt's is {:.0} times LoRA's, LoRA's {:.0} times full \
             fine-tuning's. One rate for all would rank the rates.",
            lr("prompt")? / lr("lora")?,
            lr("lora")? / lr("full")?
        ),
        "The task was chosen so that methods separate, and the head is frozen as in the lesson; another task has another \
         order. All methods, more seeds: cargo run --release -p peft-bench -- --seeds 0..8"
            .into(),
    ];
    if let Some(widest) = widest {
        let line = format!(
            "Seeds differ by up to {widest:.1} points (standard deviation), LoRA and DoRA on the same seed by {}: look at \
             differences seed by seed.",
            points(&difference("lora", "dora")?)
        );
        lines.insert(1, line);
    }
    Ok(lines)
}
