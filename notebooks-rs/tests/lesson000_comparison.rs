//! Lesson 000, 2.6: the task on which the methods separate, with a few steps of one seed. What is recorded of it
//! (`peft-bench/tests/golden/synth.json`) are sizes and learning rates; its data and first losses are compared in
//! `peft-bench`, and accuracies differ between processors.

mod common;

use anyhow::{Context, Result, ensure};
use common::{alone, golden, number, once, program};
use notebooks_rs::lesson000::{compare, task};
use notebooks_rs::{Page, Setting};
use peft_bench::record::{Job, Message, Outcome, Work};
use peft_bench::sweep::{On, Sweep};
use peft_core::device::Threads;
use peft_plot::Panel;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

/// The benchmark's names and the recording's, in the order of the table.
const METHODS: [(&str, &str); 8] = [
    ("full", "full"),
    ("lora", "lora"),
    ("dora", "dora"),
    ("adapter", "adapter"),
    ("prefix", "prefixkv"),
    ("hidden-prefix", "prefix"),
    ("prompt", "prompt"),
    ("scratch", "scratch"),
];

/// The comparison, with a task of a few steps.
fn small(seeds: &[i64]) -> Result<Arc<Page>> {
    once(&format!("{} seeds", seeds.len()), |page| {
        let on = On::Synthetic { pretrain_steps: 4, scratch: true };
        let task = Sweep { on, seeds: seeds.to_vec(), steps: Some(3), ..task(Setting::default())? };
        compare(Setting::default(), &task, page)
    })
}

#[test]
fn the_whole_task_is_the_recorded_one() -> Result<()> {
    let (task, cfg) = (task(Setting { seed: 7, ..Setting::default() })?, &golden_task()?["cfg"]);
    ensure!(task.seeds == [7, 8, 9] && task.device == "cpu" && task.lr.is_none() && task.batch.is_none());
    let steps = cfg["pre_steps"].as_u64().zip(cfg["steps"].as_u64());
    let (pretrain, steps) = steps.context("steps")?;
    ensure!(task.steps() == Some(3 * (pretrain + METHODS.len() as u64 * steps)), "{:?}", task.steps());
    Ok(())
}

fn golden_task() -> Result<serde_json::Value> {
    golden("../../../peft-bench/tests/golden/synth")
}

#[test]
fn methods_have_the_recorded_sizes_and_rates() -> Result<()> {
    let _alone = alone();
    let (page, golden) = (small(&[0])?, golden_task()?);
    let [methods, differences] = page.tables() else { anyhow::bail!("{} tables", page.tables().len()) };
    ensure!(methods.rows.len() == METHODS.len() + 1 && differences.rows.len() == 8);
    for ((name, recorded), row) in METHODS.iter().zip(&methods.rows) {
        let trainable = golden["methods"][recorded]["trainable"].as_i64().context("trainable")?;
        ensure!(row[1] == peft_core::report::commas(trainable), "{row:?}");
        ensure!(number(&page, &format!("transfer.{name}.trainable"))? == trainable as f64, "{name}");
        ensure!(row[2] == format!("{:.2}%", 100.0 * trainable as f64 / 28_740.0), "{row:?}");
        let lr = golden["lr"][recorded].as_f64().context("lr")?;
        ensure!(row[3].parse::<f64>()? == lr, "{row:?}, recorded {lr}");
        let accuracy = page.facts()[&format!("transfer.{name}.accuracy")][0].as_f64().context("accuracy")?;
        ensure!(row[4] == format!("{accuracy:.1}") && (0.0..=100.0).contains(&accuracy), "{row:?}");
    }
    whole(&page, &[0])?;
    let unadapted = page.facts()["transfer.unadapted.accuracy"][0].as_f64().context("accuracy")?;
    ensure!(methods.rows[8][1] == "0" && methods.rows[8][4] == format!("{unadapted:.1}"));
    let fact =
        |name: &str| page.facts()[&format!("transfer.{name}.accuracy")][0].as_f64().context("a number");
    ensure!(differences.rows[0][1] == format!("{:+.1}", fact("full")? - fact("lora")?), "{differences:?}");
    ensure!(differences.rows[6][1] == format!("{:+.1}", fact("prompt")? - unadapted), "{differences:?}");
    Ok(())
}

/// What a reader calls the methods, and the two that they are held against.
const TITLES: [(&str, &str); 9] = [
    ("full", "Full Fine-Tune"),
    ("lora", "LoRA"),
    ("dora", "DoRA"),
    ("adapter", "Adapter"),
    ("prefix", "Prefix Tuning"),
    ("hidden-prefix", "Prefix, the lesson's"),
    ("prompt", "Prompt Tuning"),
    ("scratch", "Fresh model"),
    ("unadapted", "Base as it is"),
];

/// Mean and, of several, standard deviation.
fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()))
}

fn shown(mean: String, error: Option<f64>) -> String {
    error.map_or(mean.clone(), |e| format!("{mean} ± {e:.1}"))
}

/// Every cell, every point and every number of our own words, from the accuracies among the facts.
fn whole(page: &Page, seeds: &[i64]) -> Result<()> {
    ensure!(page.facts()["transfer.seeds"] == serde_json::json!(seeds));
    let accuracies = |name: &str| -> Result<Vec<f64>> {
        let list = page.facts()[&format!("transfer.{name}.accuracy")].as_array().context("accuracies")?;
        ensure!(list.len() == seeds.len(), "{name}: {list:?}");
        list.iter().map(|a| a.as_f64().context("an accuracy")).collect()
    };
    let own = page.facts()["transfer.base_on_its_own_tasks"].as_array().context("the base")?;
    ensure!(own.len() == seeds.len());
    let (mut rows, mut ranked, mut widest) = (Vec::new(), Vec::new(), None);
    for (name, title) in TITLES {
        let (mean, deviation) = mean(&accuracies(name)?);
        let accuracy = shown(format!("{mean:.1}"), deviation);
        let fact = |what: &str| number(page, &format!("transfer.{name}.{what}"));
        rows.push(match name {
            "unadapted" => [title, "0", "0.00%", "", &accuracy, ""].map(str::to_owned).to_vec(),
            _ => vec![
                title.into(),
                peft_core::report::commas(fact("trainable")? as i64),
                format!("{:.2}%", 100.0 * fact("trainable")? / 28_740.0),
                fact("lr")?.to_string(),
                accuracy,
                format!("{:.3}", fact("loss")?),
            ],
        });
        if name != "unadapted" {
            widest = widest.max(deviation.map(|d| format!("{d:04.1}")));
            if name != "scratch" {
                ranked.push((mean, format!("{title} {mean:.1}")));
            }
        }
    }
    let difference = |one: &str, other: &str| -> Result<(String, String)> {
        let pairs: Vec<f64> = accuracies(one)?.iter().zip(accuracies(other)?).map(|(a, b)| a - b).collect();
        let (mean, deviation) = mean(&pairs);
        let error = deviation.map(|d| d / (seeds.len() as f64).sqrt());
        let better = pairs.iter().filter(|d| **d > 0.0).count();
        Ok((shown(format!("{mean:+.1}"), error), format!("{better} of {}", seeds.len())))
    };
    let pairs = [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (5, 6), (6, 8), (0, 7)];
    let differences = pairs.iter().map(|(one, other)| {
        let ((one, title), (other, to)) = (TITLES[*one], TITLES[*other]);
        let (points, better) = difference(one, other)?;
        Ok(vec![format!("{title} − {to}"), points, better])
    });
    let differences = differences.collect::<Result<Vec<_>>>()?;
    let [methods, paired] = page.tables() else { anyhow::bail!("{} tables", page.tables().len()) };
    ensure!(methods.rows == rows, "{:#?}\n{rows:#?}", methods.rows);
    ensure!(paired.rows == differences, "{:#?}\n{differences:#?}", paired.rows);
    ensure!(methods.columns.len() == 6 && paired.columns.len() == 3);
    ensure!(methods.title.contains(&format!(": {} seeds, ", seeds.len())), "{}", methods.title);

    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let order: Vec<String> = ranked.into_iter().map(|(_, text)| text).collect();
    let lr = |name: &str| number(page, &format!("transfer.{name}.lr"));
    let times = [lr("prompt")? / lr("lora")?, lr("lora")? / lr("full")?];
    let mut words = vec![
        format!("from the best: {}.", order.join(", ")),
        format!("that of a fresh model: {} points", difference("full", "scratch")?.0),
        format!("without any training it gets {:.1}%", mean(&accuracies("unadapted")?).0),
        format!("is {:.0} times LoRA's, LoRA's {:.0} times full", times[0], times[1]),
    ];
    if let Some(widest) = widest {
        words.push(format!("up to {} points", widest.trim_start_matches('0')));
        words.push(format!("on the same seed by {}:", difference("lora", "dora")?.0));
    }
    let seen = page.to_see().join("\n");
    ensure!(words.iter().all(|w| seen.contains(w)), "{words:#?}\n{seen}");

    let [_, accuracy, losses] = page.pictures() else { anyhow::bail!("{} figures", page.pictures().len()) };
    let Panel::Points(panel) = &accuracy.figure.rows[0][0] else { anyhow::bail!("{accuracy:?}") };
    for (point, (name, title)) in panel.points.iter().zip(TITLES) {
        let ((mean, deviation), n) =
            (mean(&accuracies(name)?), number(page, &format!("transfer.{name}.trainable"))?);
        ensure!(point.label == title && point.x == n && (point.y - mean).abs() < 1e-9, "{point:?}");
        let off = point.error.zip(deviation).map_or(0.0, |(a, b)| (a - b).abs());
        ensure!(point.error.is_some() == deviation.is_some() && off < 1e-9, "{point:?} {deviation:?}");
    }
    ensure!(panel.points.len() == METHODS.len(), "{panel:?}");
    let Panel::Lines(panel) = &losses.figure.rows[0][0] else { anyhow::bail!("{losses:?}") };
    for (series, (name, title)) in panel.series.iter().zip(TITLES) {
        ensure!(series.name == title && series.points.len() == 3, "{series:?}");
        let (steps, last): (Vec<f64>, f64) =
            (series.points.iter().map(|p| p.0).collect(), series.points[2].1);
        ensure!(steps == [1.0, 2.0, 3.0] && last.is_finite(), "{series:?}");
        ensure!(number(page, &format!("transfer.{name}.loss"))?.is_finite());
    }
    Ok(())
}

#[test]
fn two_seeds_have_error_bars_in_tables_and_pictures() -> Result<()> {
    let _alone = alone();
    let page = small(&[0, 1])?;
    whole(&page, &[0, 1])?;
    ensure!(page.facts()["transfer.seeds"] == serde_json::json!([0, 1]));
    let [methods, differences] = page.tables() else { anyhow::bail!("{} tables", page.tables().len()) };
    ensure!(methods.rows.iter().all(|row| row[4].contains('±')), "{methods:?}");
    ensure!(differences.rows.iter().all(|row| row[1].contains('±') && row[2].ends_with("of 2")));
    let names: Vec<_> = page.pictures().iter().map(|p| p.name.as_str()).collect();
    ensure!(names[1..] == ["comparison_accuracy", "comparison_losses"], "{names:?}");
    let [[Panel::Points(points)]] =
        &page.pictures()[1].figure.rows.iter().map(Vec::as_slice).collect::<Vec<_>>()[..]
    else {
        anyhow::bail!("{:?}", page.pictures()[1])
    };
    ensure!(points.points.len() == METHODS.len() && points.x.log);
    ensure!(points.points.iter().zip(&methods.rows).all(|(p, row)| p.label == row[0] && p.error.is_some()));
    let [[Panel::Lines(lines)]] =
        &page.pictures()[2].figure.rows.iter().map(Vec::as_slice).collect::<Vec<_>>()[..]
    else {
        anyhow::bail!("{:?}", page.pictures()[2])
    };
    ensure!(lines.series.len() == METHODS.len() - 1);
    ensure!(lines.series.iter().all(|s| s.points.len() == 3 && s.band.is_some()));
    ensure!(page.to_see().iter().any(|line| line.contains("seed by seed")), "{:?}", page.to_see());
    Ok(())
}

#[test]
fn the_program_is_its_own_worker() -> Result<()> {
    let base = tempfile::tempdir()?;
    let base = base.path().join("base.safetensors");
    let work = Work::Pretrain { base: base.clone(), steps: 2 };
    let job = Job { seed: 0, device: "cpu".into(), threads: Threads::default(), work };
    let mut child = program("comparison")?;
    let mut child = child.arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(&serde_json::to_vec(&job)?)?;
    let out = child.wait_with_output()?;
    let text = String::from_utf8(out.stdout)?;
    let last = serde_json::from_str(text.lines().last().context("a last word")?)?;
    ensure!(matches!(last, Message::Ended(Outcome::Pretrained(_))) && base.exists(), "{text}");
    Ok(())
}
