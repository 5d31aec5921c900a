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
use peft_plot::Panel;
use std::io::Write;
use std::process::Stdio;

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
fn small(seeds: &[i64]) -> Result<&'static Page> {
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
        ensure!(row[1] == peft_core::commas(trainable), "{row:?}");
        ensure!(number(&page, &format!("transfer.{name}.trainable"))? == trainable as f64, "{name}");
        ensure!(row[2] == format!("{:.2}%", 100.0 * trainable as f64 / 28_740.0), "{row:?}");
        let lr = golden["lr"][recorded].as_f64().context("lr")?;
        ensure!(row[3].parse::<f64>()? == lr, "{row:?}, recorded {lr}");
        let accuracy = page.facts()[&format!("transfer.{name}.accuracy")][0].as_f64().context("accuracy")?;
        ensure!(row[4] == format!("{accuracy:.1}") && (0.0..=100.0).contains(&accuracy), "{row:?}");
    }
    let unadapted = page.facts()["transfer.unadapted.accuracy"][0].as_f64().context("accuracy")?;
    ensure!(methods.rows[8][1] == "0" && methods.rows[8][4] == format!("{unadapted:.1}"));
    let fact =
        |name: &str| page.facts()[&format!("transfer.{name}.accuracy")][0].as_f64().context("a number");
    ensure!(differences.rows[0][1] == format!("{:+.1}", fact("full")? - fact("lora")?), "{differences:?}");
    ensure!(differences.rows[6][1] == format!("{:+.1}", fact("prompt")? - unadapted), "{differences:?}");
    Ok(())
}

#[test]
fn two_seeds_have_error_bars_in_tables_and_pictures() -> Result<()> {
    let _alone = alone();
    let page = small(&[0, 1])?;
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
    let job = Job { seed: 0, device: "cpu".into(), threads: None, work };
    let mut child = program("comparison")?;
    let mut child = child.arg("--worker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(&serde_json::to_vec(&job)?)?;
    let out = child.wait_with_output()?;
    let text = String::from_utf8(out.stdout)?;
    let last = serde_json::from_str(text.lines().last().context("a last word")?)?;
    ensure!(matches!(last, Message::Ended(Outcome::Pretrained(_))) && base.exists(), "{text}");
    Ok(())
}
