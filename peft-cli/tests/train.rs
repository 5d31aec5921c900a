//! `peft train` and `peft check`, as their users run them.

use anyhow::{Context, Result, ensure};
use peft_core::hub::{self, Head, Options};
use peft_core::io::adapter;
use peft_core::tch::Device;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// A folder with a tiny model that has a tokenizer, and data for it.
struct Work {
    dir: TempDir,
}

impl Work {
    /// A classifier of three classes.
    fn classes() -> Result<Self> {
        let texts = ["the cat is", "a dog was", "the mat is not", "what is", "who sat on a"];
        let classes = [("red", "warm"), ("blue", "cold"), ("small", "tiny")];
        let rows = texts.iter().flat_map(|text| {
            classes.map(|(word, label)| json!({ "text": format!("{text} {word}"), "label": label }))
        });
        Self::of("bert", &rows.collect::<Vec<_>>())
    }

    /// A causal model.
    fn causal() -> Result<Self> {
        let texts = ["the cat sat on a mat", "a dog was red", "what is the cat", "the mat is not small"];
        Self::of(
            "llama",
            &texts.iter().cycle().take(12).map(|text| json!({ "text": text })).collect::<Vec<_>>(),
        )
    }

    fn of(family: &str, rows: &[Value]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let model = dir.path().join("model");
        std::fs::create_dir(&model)?;
        for from in [golden(family).join("base"), golden("text").join(family)] {
            for entry in std::fs::read_dir(from)? {
                let entry = entry?;
                std::fs::copy(entry.path(), model.join(entry.file_name()))?;
            }
        }
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(dir.path().join("train.jsonl"), text)?;
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `peft COMMAND` in the folder.
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peft"));
        command.current_dir(self.dir.path()).env("OMP_NUM_THREADS", "1").args(arguments);
        command.output().context("peft")
    }

    /// Trains at a rate of its own, unless another one is asked for.
    fn train(&self, more: &[&str]) -> Result<Output> {
        let rate: &[&str] = if more.contains(&"--lr") { &[] } else { &["--lr", "1e-2"] };
        let given = ["train", "--model", "model", "--data", "train.jsonl", "--output", "out", "--set", "r=4"];
        self.run(&[&given[..], rate, more].concat())
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn good(output: &Output) -> Result<Value> {
    ensure!(output.status.success(), "{:?}: {}", output.status, stderr(output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Fails with this code, and one line of error that has all of the parts.
fn refused(output: &Output, code: i32, parts: &[&str]) -> Result<()> {
    let text = stderr(output);
    ensure!(output.status.code() == Some(code), "{:?}: {text}", output.status);
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    ensure!(errors.len() == 1, "{text}");
    ensure!(parts.iter().all(|part| errors[0].contains(part)), "{text}");
    Ok(())
}

/// The weights of the adapter in a directory.
fn weights(dir: &Path) -> Result<Vec<u8>> {
    Ok(std::fs::read(dir.join(adapter::TENSORS))?)
}

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
fn what_cannot_be_is_refused_before_anything_is_lost() -> Result<()> {
    let work = Work::classes()?;
    good(&work.train(&["--epochs", "1", "--json"])?)?;
    let before = weights(&work.path("out"))?;
    refused(&work.train(&[])?, 1, &["holds something already", "--resume", "--overwrite"])?;
    refused(&work.train(&["--resume", "--batch", "3"])?, 1, &["batch", "3", "--overwrite"])?;
    refused(&work.train(&["--resume", "--set", "lora_alpha=3"])?, 1, &["set", "lora_alpha"])?;
    refused(&work.train(&["--overwrite", "--set", "alpha=3"])?, 1, &["alpha", "did you mean"])?;
    refused(&work.train(&["--overwrite", "--eval-data", "none.jsonl"])?, 1, &["none.jsonl"])?;
    ensure!(weights(&work.path("out"))? == before, "the adapter was changed");
    std::fs::write(work.path("train.jsonl"), "{\"text\": \"a dog\", \"label\": \"warm\"}\n")?;
    refused(&work.train(&["--resume"])?, 1, &["the data is not what"])?;
    refused(&work.run(&["train", "--resume", "--output", "nowhere"])?, 1, &["nowhere", "run.toml"])?;
    ensure!(work.run(&["train", "--no-such"])?.status.code() == Some(2));
    Ok(())
}

/// The model's own head is for three classes, and the data have two.
#[test]
fn a_head_for_other_classes_is_drawn_where_that_is_said() -> Result<()> {
    let work = Work::classes()?;
    let rows = ["warm", "cold"].map(|label| json!({ "text": "the cat is red", "label": label }).to_string());
    std::fs::write(work.path("train.jsonl"), rows.join("\n"))?;
    refused(&work.train(&[])?, 1, &["classifier.weight", "[3, 32]", "--new-head"])?;
    good(&work.train(&["--new-head", "--epochs", "1", "--json"])?)?;
    ensure!(adapter::classes(work.path("out"))?.len() == 2);
    let output = work.run(&["eval", "model", "train.jsonl", "--adapter", "out", "--json"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    Ok(())
}

/// Numbers that train nothing: nothing is made.
#[test]
fn numbers_that_train_nothing_are_refused() -> Result<()> {
    let work = Work::causal()?;
    for (more, part) in [
        (&["--lr", "-1"][..], "lr"),
        (&["--lr", "nan"], "lr"),
        (&["--lr", "inf"], "lr"),
        (&["--epochs", "0"], "epochs"),
        (&["--batch", "0"], "batch"),
        (&["--length", "1"], "length"),
        (&["--warmup", "2"], "warmup"),
        (&["--set", "r=0"], "r"),
        (&["--task", "classes"], "task"),
        (&["--model", "out"], "out"),
        (&["--device", "cuda:99"], "cuda:99"),
    ] {
        let given: &[&str] = &["train", "--data", "train.jsonl", "--output", "made"];
        let model: &[&str] = if more[0] == "--model" { &[] } else { &["--model", "model"] };
        let output = work.run(&[given, model, more].concat())?;
        refused(&output, 1, &[part]).with_context(|| format!("{more:?}"))?;
        ensure!(!work.path("made").exists(), "{more:?}: something was made");
    }
    Ok(())
}

/// Before anything is trained.
#[test]
fn a_merged_model_has_a_place_of_its_own() -> Result<()> {
    let work = Work::causal()?;
    refused(&work.train(&["--merge", "model"])?, 1, &["merge", "model"])?;
    refused(&work.train(&["--overwrite", "--merge", "out"])?, 1, &["merge", "out", "the run"])?;
    let prompt = [
        "train",
        "--model",
        "model",
        "--data",
        "train.jsonl",
        "--output",
        "out",
        "--method",
        "prompt_tuning",
        "--overwrite",
    ];
    refused(
        &work.run(&[&prompt[..], &["--merge", "merged"]].concat())?,
        1,
        &["merge", "cannot be folded in"],
    )?;
    ensure!(!work.path("out/metrics.jsonl").exists(), "something was trained");
    Ok(())
}

#[test]
fn two_at_once_are_kept_apart() -> Result<()> {
    let work = Work::classes()?;
    let file = work.path("out/.lock");
    std::fs::create_dir(work.path("out"))?;
    let lock = std::fs::File::create(file)?;
    lock.lock()?;
    refused(&work.train(&[])?, 1, &["out", "another process"])?;
    drop(lock);
    good(&work.train(&["--epochs", "1", "--json"])?)?;
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

#[test]
fn check_finds_what_is_wrong_and_writes_nothing() -> Result<()> {
    let work = Work::classes()?;
    let check = |more: &[&str]| {
        work.run(&[&["check", "--model", "model", "--data", "train.jsonl", "--json"], more].concat())
    };
    let states = |output: &Output| -> Vec<(String, String)> {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let word = |v: &Value, name: &str| v[name].as_str().unwrap_or_default().to_owned();
        lines.map(|v| (word(&v, "what"), word(&v, "state"))).collect()
    };
    let fine = check(&["--lr", "1e-3"])?;
    ensure!(
        fine.status.success() && states(&fine).iter().all(|(_, state)| state == "ok"),
        "{:?}",
        states(&fine)
    );
    ensure!(states(&fine).iter().any(|(what, _)| what == "what is trained"), "no step was taken");
    for (more, what, state, code) in [
        (&["--lr", "1"][..], "learning rate", "warning", 0),
        (&["--lr=-1"], "recipe", "fault", 3),
        (&["--pack"], "training", "fault", 3),
        (&["--method", "adalora", "--set", "total_step=500", "--lr", "1e-3"], "steps", "warning", 0),
        (&["--eval-data", "train.jsonl", "--metric", "perplexity"], "training", "fault", 3),
        (&["--output", "model"], "output", "warning", 0),
        (&["--set", "target_modules=nothing"], "training", "fault", 3),
        (&["--length", "4"], "read", "warning", 0),
    ] {
        let output = check(more)?;
        ensure!(output.status.code() == Some(code), "{more:?}: {}", stderr(&output));
        let found = states(&output);
        ensure!(found.contains(&(what.to_owned(), state.to_owned())), "{more:?}: {found:?}");
    }
    ensure!(std::fs::read_dir(work.dir.path())?.count() == 2, "something was written");
    Ok(())
}
