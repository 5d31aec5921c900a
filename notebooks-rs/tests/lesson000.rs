//! Lesson 000 against the recorded run of PyTorch 2.11 (`golden/seed000.json`): every printed line, every initial
//! tensor, the loss of all 500 steps, every trained tensor.
//!
//! Bits depend on the processor's instruction set. They are compared on the kind of processor that the recording
//! comes from; elsewhere losses are within the spread that was measured over kinds of processors.

mod common;

use anyhow::{Context, Result, ensure};
use common::{PORTABLE, alone, close, golden, number, once, recorded_kind, run, same_lines, sha, strings};
use notebooks_rs::lesson000::{Lesson, TECHNIQUES, compare, task};
use notebooks_rs::{Page, Setting};
use peft_bench::sweep::{On, Sweep};
use peft_core::models::TinyConfig;
use peft_core::seam::PREFIX;
use peft_plot::Panel;
use serde_json::Value;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// The sections in the lesson's order, the comparison after them.
const SECTIONS: [&str; 5] = ["base_model", "adapter", "lora", "prompt_tuning", "prefix_tuning"];

/// The golden's name of a tensor of ours.
fn golden_name(technique: &str, name: &str) -> String {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    match technique {
        "adapter" => name.replace("adapter_", "adapter."),
        "lora" => name.replace("lora_A.weight", "A").replace("lora_B.weight", "B"),
        "prefix" => name.replace("attn.prefix", "prefix"),
        "prompt" => "prompt".into(),
        _ => name.into(),
    }
}

/// The comparison with the least of the task that follows the lesson's own table.
fn comparison() -> Result<Arc<Page>> {
    once("comparison", |page| {
        let on = On::Synthetic { pretrain_steps: 1, scratch: true };
        let task = Sweep { on, seeds: vec![0], steps: Some(1), ..task(Setting::default())? };
        compare(Setting::default(), &task, page)
    })
}

#[test]
fn every_printed_line() -> Result<()> {
    let _alone = alone();
    let mut lines = Vec::new();
    for section in SECTIONS {
        lines.extend(run(section)?.lines().to_vec());
    }
    lines.extend(comparison()?.lines().to_vec());
    same_lines(&lines, &strings(&golden("seed000")?["printed"])?)
}

#[test]
fn data_and_base_start_as_in_python() -> Result<()> {
    let _alone = alone();
    let golden = golden("seed000")?;
    tch::manual_seed(0);
    let x = Tensor::randint(100, [200, 10], (Kind::Int64, Device::Cpu));
    let y = Tensor::randint(4, [200], (Kind::Int64, Device::Cpu));
    ensure!(sha(&x)? == golden["data"]["X_sha256_128"] && sha(&y)? == golden["data"]["y_sha256_128"]);
    let init = golden["sections"]["pretrain"]["init_sha256_128"].as_object().context("init")?;
    let params = TinyConfig::default().init(Device::Cpu)?.tensors();
    ensure!(
        params.keys().collect::<Vec<_>>() == {
            let mut names: Vec<_> = init.keys().collect();
            names.sort();
            names
        }
    );
    for (name, t) in &params {
        ensure!(sha(t)? == init[name], "{name}");
    }
    Ok(())
}

#[test]
fn techniques_start_as_in_python() -> Result<()> {
    let _alone = alone();
    let golden = golden("seed000")?;
    let lesson = Lesson::new(Setting::default())?;
    for t in TECHNIQUES.iter().filter(|t| t.key != "full") {
        let init = &golden["sections"][t.key]["init_sha256_128"];
        for (name, tensor) in lesson.peft.params(t.key)?.tensors() {
            let name = golden_name(t.key, &name);
            ensure!(init[&name] == sha(&tensor)?, "{} {name}", t.key);
        }
        let report = lesson.peft.report(&[t.key])?;
        let section = &golden["sections"][t.key];
        ensure!(section["trainable"] == report.trainable && section["total"] == report.all, "{report}");
    }
    Ok(())
}

/// Compares one training with the golden: losses, trained tensors, rows that are right.
fn trained(lesson: &Lesson, section: &str, active: &[&str], losses: &[f64]) -> Result<()> {
    let golden = &golden("seed000")?["sections"][section];
    let recorded = &golden["by_condition"]["avx512_threads1"];
    let expected = recorded["loss"].as_array().context("loss")?;
    ensure!(losses.len() == expected.len(), "{section}: {} steps, {} recorded", losses.len(), expected.len());
    for (step, (found, expected)) in losses.iter().zip(expected).enumerate() {
        let expected = expected.as_f64().context("loss")?;
        let error = (found - expected).abs() / expected;
        ensure!(error <= PORTABLE, "{section}, step {step}: loss {found}, recorded {expected}");
    }
    let (test, train) = (lesson.correct(active, &lesson.test)?.0, lesson.correct(active, &lesson.train)?.0);
    let accuracy = &golden["accuracy"];
    ensure!(
        accuracy["test_correct_of_40"] == test && accuracy["train_correct_of_160"] == train,
        "{test} {train}"
    );
    if !recorded_kind() {
        eprintln!("{section}: not the recorded kind of processor, losses compared to {PORTABLE:e}");
        return Ok(());
    }
    for (step, (found, bits)) in
        losses.iter().zip(recorded["loss_f32_hex"].as_array().context("hex")?).enumerate()
    {
        let found = format!("{:08x}", (*found as f32).to_bits());
        ensure!(*bits == found, "{section}, step {step}: loss bits {found}, recorded {bits}");
    }
    let params = match active {
        [] => lesson.peft.base().tensors(),
        _ => lesson.peft.params(section)?.tensors(),
    };
    for (name, t) in params {
        let name = golden_name(section, &name);
        ensure!(recorded["final_sha256_128"][&name] == sha(&t)?, "{section}: trained {name}");
    }
    Ok(())
}

#[test]
fn training_has_the_recorded_losses_and_weights() -> Result<()> {
    let _alone = alone();
    let lesson = Lesson::new(Setting::default())?;
    trained(&lesson, "pretrain", &[], &lesson.losses)?;
    let base: Vec<String> = lesson.peft.base().tensors().values().map(sha).collect::<Result<_>>()?;
    for t in &TECHNIQUES {
        trained(&lesson, t.key, &[t.key], &lesson.fit(t)?)?;
    }
    let after: Vec<String> = lesson.peft.base().tensors().values().map(sha).collect::<Result<_>>()?;
    ensure!(base == after, "training changed the frozen base");
    if recorded_kind() {
        let probe = Vec::<f32>::try_from(Tensor::randn([4], (Kind::Float, Device::Cpu)))?;
        let probe: Vec<String> = probe.iter().map(|v| format!("{:08x}", v.to_bits())).collect();
        let recorded = &golden("seed000")?["rng_probe_after_everything_randn4_f32_hex"]["avx512_threads1"];
        ensure!(*recorded == probe.join(" "), "the generator is elsewhere after the lesson");
    }
    Ok(())
}

#[test]
fn json_has_the_lines_and_the_numbers() -> Result<()> {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_lora")).arg("--json").output()?;
    let json: Value = serde_json::from_slice(&out.stdout)?;
    ensure!(json["lora.losses"].as_array().context("losses")?.len() == 80);
    ensure!(json["lora.trainable"] == 1280 && json["lines"][0] == golden("seed000")?["printed"][5]);
    Ok(())
}

#[test]
fn mistakes_are_shown_by_numbers() -> Result<()> {
    let _alone = alone();
    let base = run("base_model")?;
    ensure!(number(&base, "base.reordered")? < 1e-5, "the tiny model knows positions");
    ensure!(
        base.mistaken()[0].as_written.contains("5 of 40") && base.mistaken()[0].right.contains("156 of 160")
    );
    // Two places, two layers, a bottleneck of 4 at width 32, with biases.
    let adapter = run("adapter")?;
    ensure!(number(&adapter, "adapter.houlsby")? == f64::from(2 * 2 * (2 * 32 * 4 + 4 + 32)));
    // A key and a value for each of 5 positions in 2 layers.
    let prefix = run("prefix_tuning")?;
    ensure!(number(&prefix, "prefix.published")? == f64::from(2 * 2 * 5 * 32));
    let lora = run("lora")?;
    ensure!(number(&lora, "lora.merge_error")? < 1e-5 * number(&lora, "lora.logits")?);
    Ok(())
}

#[test]
fn takeaways_recompute_every_share() -> Result<()> {
    let _alone = alone();
    let (page, golden) = (run("takeaways")?, golden("seed000")?);
    let base = golden["sections"]["pretrain"]["total"].as_f64().context("total")?;
    let llama = 6_738_415_616.0;
    let (layers, hidden) = (32.0, 4096.0);
    // In the order of the table: a formula for 7B, whether the method merges.
    let expected = [
        ("adapter", layers * 2.0 * (2.0 * hidden * 64.0 + 64.0 + hidden), "no"),
        ("lora", layers * 2.0 * 8.0 * (hidden + hidden), "yes"),
        ("prompt", 20.0 * hidden, "no"),
        ("prefix", layers * 2.0 * 20.0 * hidden, "no"),
    ];
    let rows = &page.tables()[0].rows;
    ensure!(rows.len() == expected.len());
    for (row, (key, large, merges)) in rows.iter().zip(expected) {
        let trained = golden["sections"][key]["trainable"].as_f64().context("trainable")?;
        let cells = [
            format!("{:.2}%", 100.0 * trained / base),
            format!("{:.4}%", 100.0 * large / llama),
            merges.into(),
        ];
        ensure!(row[3..] == cells, "{row:?} is not {cells:?}");
        ensure!(number(&page, &format!("{key}.trainable_7b"))? == large);
    }
    ensure!(page.mistaken().len() == 4 && number(&page, "lora.rank_1")? == f64::from(2 * (32 + 128)));
    Ok(())
}

#[test]
fn figures_have_the_losses() -> Result<()> {
    let _alone = alone();
    let names = [("base_model", "base_model_loss", 60), ("lora", "lora_loss", 80)];
    for (program, name, steps) in names {
        let page = run(program)?;
        let picture = page.pictures().first().context("no figure")?;
        let json = serde_json::to_value(&picture.figure)?;
        let points = json["rows"][0][0]["lines"]["series"][0]["points"].as_array().context("points")?.len();
        ensure!(picture.name == name && points == steps, "{}: {points} points", picture.name);
    }
    Ok(())
}

#[test]
fn facts_are_the_recorded_numbers() -> Result<()> {
    let _alone = alone();
    for name in SECTIONS.into_iter().chain(["takeaways"]) {
        recorded_facts(&*run(name)?).context(name)?;
    }
    let (adapter, base) = (run("adapter")?, run("base_model")?);
    let before = format!("{:.2}% before training", 100.0 * number(&base, "base.test_correct")? / 40.0);
    ensure!(adapter.to_see()[1].contains(&before), "{:?}", adapter.to_see());
    Ok(())
}

/// Whether a page's losses, counts and rows that are right are the recorded ones.
fn recorded_facts(page: &Page) -> Result<()> {
    let golden = &golden("seed000")?["sections"];
    for (name, found) in page.facts() {
        let Some((key, what)) = name.split_once('.') else { continue };
        let section = &golden[if key == "base" { "pretrain" } else { key }];
        match what {
            "losses" => {
                let recorded =
                    section["by_condition"]["avx512_threads1"]["loss"].as_array().context("loss")?;
                let found = found.as_array().context("losses")?;
                ensure!(found.len() == recorded.len(), "{name}: {} of {}", found.len(), recorded.len());
                for (found, recorded) in found.iter().zip(recorded) {
                    let (found, recorded) = found.as_f64().zip(recorded.as_f64()).context("a loss")?;
                    close(name, found, recorded)?;
                }
            }
            "test_correct" => ensure!(section["accuracy"]["test_correct_of_40"] == *found, "{name}: {found}"),
            "train_correct" => {
                ensure!(section["accuracy"]["train_correct_of_160"] == *found, "{name}: {found}")
            }
            "trainable" if key != "full" => ensure!(section["trainable"] == *found, "{name}: {found}"),
            "all" if key != "full" => ensure!(section["total"] == *found, "{name}: {found}"),
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn random_labels_are_compared_by_the_recorded_numbers() -> Result<()> {
    let _alone = alone();
    let (page, golden) = (comparison()?, &golden("seed000")?["sections"]);
    recorded_facts(&page)?;
    let of = |key: &str, what: &str| golden["adapter"][what].as_f64().context(key.to_owned());
    let (trainable, total) = (of("adapter", "trainable")?, of("adapter", "total")?);
    let [by_chance, denominators] = page.mistaken() else { anyhow::bail!("{:?}", page.mistaken()) };
    ensure!(*by_chance == run("base_model")?.mistaken()[0], "{by_chance:?}");
    let own = format!("is {:.2}% in its own section", 100.0 * trainable / total);
    let here = format!("and {:.2}% here", 100.0 * trainable / (total - trainable));
    ensure!(denominators.as_written.contains(&own) && denominators.right.contains(&here), "{denominators:?}");
    let by_heart = TECHNIQUES.iter().map(|t| {
        let right = number(&page, &format!("{}.train_correct", t.key))?;
        Ok(format!("{} {right}/160", t.title))
    });
    let by_heart = by_heart.collect::<Result<Vec<_>>>()?.join(", ");
    ensure!(page.to_see()[0].ends_with(&format!("training rows: {by_heart}.")), "{:?}", page.to_see());
    let picture = page.pictures().first().context("a figure")?;
    ensure!(picture.name == "comparison_random_labels", "{}", picture.name);
    let [Panel::Lines(lines)] = &picture.figure.rows[0][..] else { anyhow::bail!("{picture:?}") };
    ensure!(lines.series.len() == TECHNIQUES.len());
    for (series, t) in lines.series.iter().zip(&TECHNIQUES) {
        let losses = page.facts()[&format!("{}.losses", t.key)].as_array().context("losses")?;
        let expected: Vec<_> = (1u32..).zip(losses).map(|(x, y)| Some((x.into(), y.as_f64()?))).collect();
        let found: Vec<_> = series.points.iter().copied().map(Some).collect();
        ensure!(series.name == t.title && found == expected, "{}: {:?}", t.title, series.points);
    }
    Ok(())
}
