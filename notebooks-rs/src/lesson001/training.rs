//! Section 5: the lesson's three functions with this library and a model that fits a test: configure, train, save, load,
//! merge. With the lesson's settings, over real text.

use super::catalogue::{self, Warmup};
use super::flow::{Flow, LESSONS, METHODS, ROWS, Trained, method};
use super::text::Example;
use crate::measure::small;
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result, bail};
use peft_core::hub;
use peft_core::report::commas;
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use tch::{Device, Tensor};

/// The lesson's `logging_steps`.
const LOGGING: usize = 10;

/// 5. Using HuggingFace PEFT, without it.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let (text, base) = catalogue::read(setting, page)?;
    let model = text.path().join("model");
    hub::save(&base, &model, Some(text.path()))?;
    let bar = page.progress("epochs", 2 * LESSONS.epochs * METHODS.len() as u64);
    let flow = Flow { text: &text, model, device: setting.device, bar: &bar };
    let mut all = Vec::new();
    for method in METHODS {
        page.line(format!("{:<6} {}", method.0, flow.open(method.0)?.report(&[method.0])?))?;
        all.push(flow.run(method)?);
    }
    bar.finish_and_clear();

    let before = catalogue::correct(&base, &[], &text)?;
    let base_bytes = std::fs::metadata(flow.model.join("model.safetensors"))?.len();
    report(&flow, &all, page)?;
    files(&all, base_bytes, page)?;
    page.figure("unified_training_losses", figure(&all))?;
    page.mistakes(&mistakes(&flow, &all)?)?;
    let updates = LESSONS.epochs * LESSONS.steps(ROWS);
    let (tests, guess) = (text.test.len(), text.test.len() / text.sections);
    page.fact("base.right", before);
    page.fact("base.parameters", base.report(&[])?.all);
    page.fact("updates", updates);
    page.what_to_see(&[
        format!(
            "The base has read {} entries `section : description` of a catalogue; the task is the question turned round, \
             `description :`. Of {tests} test rows it gets {before} right, and guessing a section {guess}.",
            commas(text.train.len() as i64)
        ),
        format!(
            "{ROWS} rows in parts of {}, {} parts an update: {updates} updates in {} epochs. `step_accumulated` \
             takes the parts one by one, and holds the activations of one.",
            LESSONS.batch, LESSONS.accumulation, LESSONS.epochs
        ),
        format!(
            "An adapter is a directory of two files. The largest one here has {} bytes, the base {}; both were opened \
             again from disk for the last columns.",
            commas(all.iter().map(|t| t.bytes).max().unwrap_or_default() as i64),
            commas(base_bytes as i64)
        ),
        "Loaded adapters give the same bits. A merged LoRA differs by rounding and costs nothing at inference.".into(),
        "How the methods compare, each with a rate of its own: `unified_ranking`.".into(),
    ])?;
    Ok(())
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// Mean losses of the first and the last updates.
fn ends(losses: &[f64]) -> [f64; 2] {
    [mean(&losses[..LOGGING]), mean(&losses[losses.len() - LOGGING..])]
}

fn report(flow: &Flow<'_>, all: &[Trained], page: &mut Page) -> Result<()> {
    let tests = flow.text.test.len();
    let mut rows = Vec::new();
    for t in all {
        for (what, rate, (losses, right)) in
            [("lessons", LESSONS.lr, &t.lessons), ("suited", t.rate, &t.suited)]
        {
            let [first, last] = ends(losses);
            page.fact(&format!("{}.{what}.losses", t.name), losses.clone());
            page.fact(&format!("{}.{what}.right", t.name), *right);
            let right = format!("{right} of {tests}");
            rows.push(vec![
                t.name.into(),
                rate.to_string(),
                format!("{first:.2}"),
                format!("{last:.2}"),
                right,
            ]);
        }
    }
    let [first, last] = [format!("loss of the first {LOGGING} updates"), format!("of the last {LOGGING}")];
    let columns = ["method", "learning rate", &first, &last, "test rows right"];
    Ok(page.table(
        "Trained with the lesson's arguments, and with a rate that suits the method",
        columns,
        rows,
    )?)
}

fn files(all: &[Trained], base: u64, page: &mut Page) -> Result<()> {
    let mut rows = Vec::new();
    for t in all {
        page.fact(&format!("{}.reloaded", t.name), t.reloaded);
        page.fact(&format!("{}.bytes", t.name), t.bytes);
        let merged = match &t.merged {
            Ok(error) => {
                page.fact(&format!("{}.merged", t.name), *error);
                small(*error)
            }
            Err(why) => why.clone(),
        };
        let epochs = t.saved.parent().map(std::fs::read_dir).context("a directory of epochs")??.count();
        let share = format!("{} ({:.1}%)", commas(t.bytes as i64), 100.0 * t.bytes as f64 / base as f64);
        rows.push(vec![t.name.into(), epochs.to_string(), share, small(t.reloaded), merged]);
    }
    let columns = [
        "method",
        "epochs saved",
        "bytes (of the base's)",
        "loaded: logits differ by",
        "merged: logits differ by",
    ];
    Ok(page.table("Saved, loaded, merged", columns, rows)?)
}

/// The losses as they are logged: means of ten updates.
fn figure(all: &[Trained]) -> Figure {
    let logged = |losses: &[f64]| losses.chunks(LOGGING).map(mean).collect::<Vec<_>>();
    let highest = all.iter().flat_map(|t| logged(&t.lessons.0)).fold(0.0, f64::max).ceil();
    let panel = |title: &str, of: fn(&Trained) -> &[f64]| {
        let series = all.iter().map(|t| Series {
            name: t.name.into(),
            points: (1..).zip(logged(of(t))).map(|(i, l)| ((i * LOGGING) as f64, l)).collect(),
            markers: true,
            ..Series::default()
        });
        Panel::Lines(Lines {
            title: title.into(),
            x: Axis { label: "update".into(), ..Axis::default() },
            y: Axis {
                label: format!("loss, mean of {LOGGING} updates (nats)"),
                log: false,
                range: Some((0.0, highest)),
            },
            series: series.collect(),
        })
    };
    Figure {
        title: "Three methods over one small language model".into(),
        rows: vec![vec![
            panel(&format!("the lesson's: rate {}, 100 steps of warm-up", LESSONS.lr), |t| &t.lessons.0),
            panel("a rate for each method, a tenth of warm-up", |t| &t.suited.0),
        ]],
        note: None,
    }
}

fn mistakes(flow: &Flow<'_>, all: &[Trained]) -> Result<Vec<Mistake>> {
    let ends = |of: fn(&Trained) -> &[f64]| {
        let each = all.iter().map(|t| format!("{} {:.2}", t.name, ends(of(t))[1]));
        each.collect::<Vec<_>>().join(", ")
    };
    let Warmup::Steps(warmup) = LESSONS.warmup else { bail!("the lesson has a number of steps") };
    let updates = LESSONS.epochs * LESSONS.steps(ROWS);
    let refused: Vec<&str> = all.iter().filter(|t| t.merged.is_err()).map(|t| t.name).collect();
    let lengths: Vec<usize> = flow.text.train[..LESSONS.batch].iter().map(|e| e.words.len()).collect();
    let tensors = lengths.iter().map(|n| Ok(Tensor::f_zeros([*n as i64], (tch::Kind::Int64, Device::Cpu))?));
    let stacked = Tensor::f_stack(&tensors.collect::<Result<Vec<_>>>()?, 0);
    let rows: Vec<&Example> = flow.text.train[..LESSONS.batch].iter().collect();
    let padded = flow.text.questions(&rows, flow.device)?.0.ids()?.size();
    Ok(vec![
        Mistake::new(
            "An unknown method leaves peft_config without a value",
            "get_peft_model is called all the same: UnboundLocalError, and no word of the method",
            method("adapters", &flow.model).err().context("a method that there is not")?.to_string(),
        ),
        Mistake::new(
            format!("One learning rate and {warmup} steps of warm-up for all"),
            format!("{updates} updates: loss at the end {}", ends(|t| &t.lessons.0)),
            format!("a rate each, and a tenth of warm-up: {}", ends(|t| &t.suited.0)),
        ),
        Mistake::new(
            "load_and_merge_adapter takes any adapter",
            format!(
                "{} are no change of weights: merge_and_unload has nothing to merge",
                refused.join(" and ")
            ),
            all.iter().find_map(|t| t.merged.clone().err()).unwrap_or_default(),
        ),
        Mistake::new(
            "No data collator: rows of different length make no batch",
            format!(
                "rows of {lengths:?} words {}",
                if stacked.is_err() { "cannot be stacked" } else { "are stacked" }
            ),
            format!("padded and masked, with `:` and the section behind the words: {padded:?}"),
        ),
    ])
}
