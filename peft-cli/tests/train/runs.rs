//! Trainings from their recipe to their adapter.

use crate::*;

#[test]
fn a_classifier_from_a_recipe_to_an_adapter() -> Result<()> {
    let work = Work::classes()?;
    let init = work.run(&[
        "init",
        "recipe.toml",
        "--model",
        "model",
        "--data",
        "train.jsonl",
        "--output",
        "out",
        "--epochs",
        "60",
        "--lr",
        "1e-2",
        "--set",
        "r=4",
    ])?;
    ensure!(init.status.success(), "{}", stderr(&init));
    let found = good(&work.run(&[
        "train",
        "recipe.toml",
        "--eval-data",
        "train.jsonl",
        "--metric",
        "accuracy",
        "--eval-every",
        "20",
        "--json",
    ])?)?;
    ensure!(found["metrics"]["accuracy"].as_f64() > Some(0.9), "{found}");
    let out = work.path("out");
    for file in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "peft_rs.json",
        "metrics.jsonl",
        "report.html",
        "run.toml",
    ] {
        ensure!(out.join(file).exists(), "{file}");
    }
    let config: Value = serde_json::from_slice(&std::fs::read(out.join(adapter::CONFIG))?)?;
    ensure!(config["base_model_name_or_path"] == "./model" && config["task_type"] == "SEQ_CLS", "{config}");
    let mut peft = hub::open(work.path("model"), Device::Cpu, Options::named(adapter::classes(&out)?))?.peft;
    peft.load("mine", &out)?;
    // On another base it is refused, by the names of what differs.
    std::fs::copy(golden("bert/base/config.json"), work.path("model/config.json"))?;
    let measured = found["memory_measured"].as_f64().context("measured")?;
    let predicted = found["memory_predicted"].as_f64().context("predicted")?;
    ensure!((predicted / measured - 1.0).abs() < 0.1, "predicted {predicted}, measured {measured}");
    Ok(())
}

#[test]
fn a_causal_model_learns_its_texts() -> Result<()> {
    let work = Work::causal()?;
    let found = good(&work.train(&[
        "--epochs",
        "30",
        "--eval-data",
        "train.jsonl",
        "--sample",
        "the cat",
        "--merge",
        "merged",
        "--json",
    ])?)?;
    let first = std::fs::read_to_string(work.path("out/metrics.jsonl"))?;
    let first: Value = serde_json::from_str(first.lines().next().context("an event")?)?;
    ensure!(first["event"] == "eval" && first["step"] == 0, "{first}");
    let (before, after) = (first["loss"].as_f64(), found["eval_loss"].as_f64());
    ensure!(after < before.map(|loss| loss - 0.3), "{before:?} {after:?}");
    hub::open(work.path("merged"), Device::Cpu, Head::Stored)?;
    ensure!(std::fs::read_to_string(work.path("out/report.html"))?.contains("the cat"), "no sample");
    Ok(())
}

/// Catches a run that is not the same when it is stopped and gone on with, in parts of every kind.
#[test]
fn stopped_and_gone_on_with_is_the_same() -> Result<()> {
    let work = Work::classes()?;
    let all = [
        "--epochs",
        "6",
        "--batch",
        "4",
        "--micro-batch",
        "3",
        "--save-every",
        "3",
        "--set",
        "lora_dropout=0.3",
        "--json",
    ];
    good(&work.train(&all)?)?;
    let expected = weights(&work.path("out"))?;
    std::fs::rename(work.path("out"), work.path("whole"))?;

    // A time that is over at once: nothing is done, all is saved.
    let stopped = work.train(&[&all[..], &["--max-time", "0.001s"]].concat())?;
    ensure!(stopped.status.code() == Some(4), "{}", stderr(&stopped));
    ensure!(!work.path("out").join(adapter::CONFIG).exists(), "an adapter of no training");
    let resumed = work.train(&[&all[..], &["--resume", "--max-time", "60s"]].concat())?;
    good(&resumed)?;
    ensure!(weights(&work.path("out"))? == expected, "the same recipe gave another adapter");

    // The newest checkpoint is torn: the one before is gone on from.
    let newest = work.path("out/checkpoints/checkpoint-24/state.safetensors");
    let bytes = std::fs::read(&newest)?;
    std::fs::write(&newest, &bytes[..bytes.len() / 2])?;
    let resumed = work.train(&[&all[..], &["--resume"]].concat())?;
    good(&resumed)?;
    let said = stderr(&resumed);
    ensure!(
        said.contains("cut off") && said.contains("passed over") && said.contains("checkpoint-21"),
        "{said}"
    );
    ensure!(weights(&work.path("out"))? == expected, "another adapter");
    // Where none is whole, or none is left, it does not begin anew unasked.
    for step in [21, 24] {
        std::fs::write(work.path("out/checkpoints").join(format!("checkpoint-{step}/run.json")), "{}")?;
    }
    refused(
        &work.train(&[&all[..], &["--resume"]].concat())?,
        1,
        &["none of the 2 checkpoints is whole", "--overwrite"],
    )?;
    ensure!(weights(&work.path("out"))? == expected, "another adapter");
    good(&work.train(&[&all[..], &["--overwrite"]].concat())?)?;
    // And by its own recipe.
    good(&work.run(&["train", "--resume", "--output", "out", "--json"])?)?;
    ensure!(weights(&work.path("out"))? == expected, "another adapter");
    Ok(())
}

#[test]
fn a_training_that_diverges_names_rows_and_checkpoint() -> Result<()> {
    let work = Work::causal()?;
    let output =
        work.train(&["--epochs", "60", "--lr", "1e39", "--clip", "0", "--save-every", "1", "--warmup", "0"])?;
    refused(
        &output,
        5,
        &["at step", "of rows", "train.jsonl these are rows", "the last good checkpoint is", "checkpoint-"],
    )
}

/// Where memory is short, the batch is computed in parts, and the training is the same but for rounding.
#[test]
fn memory_that_runs_out_makes_parts_of_the_batch() -> Result<()> {
    let work = Work::causal()?;
    let all = ["--epochs", "4", "--batch", "12", "--eval-data", "train.jsonl", "--eval-batch", "1", "--json"];
    let whole = good(&work.train(&all)?)?;
    std::fs::remove_dir_all(work.path("out"))?;
    let measured = whole["memory_measured"].as_i64().context("measured")?;
    let limit = format!("{}b", measured * 6 / 10);
    let output = work.train(&[&all[..], &["--memory-limit", &limit]].concat())?;
    let parts = good(&output)?;
    ensure!(stderr(&output).contains("memory ran out"), "{}", stderr(&output));
    let losses = [&whole, &parts].map(|run| run["eval_loss"].as_f64().unwrap_or(f64::NAN));
    ensure!((losses[0] / losses[1] - 1.0).abs() < 1e-5, "{losses:?}");
    Ok(())
}

#[test]
fn several_seeds_are_several_runs() -> Result<()> {
    let work = Work::classes()?;
    let output = work.train(&["--epochs", "2", "--seeds", "3,4", "--json"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    ensure!(weights(&work.path("out/seed-3"))? != weights(&work.path("out/seed-4"))?);
    Ok(())
}
