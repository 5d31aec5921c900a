//! The examples that show how to start, as their readers run them: a classifier of texts, a model and a method of one's own.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use tests::golden;

/// An example of `peft-core`, beside the folder that this test is in.
fn example(name: &str) -> Result<Command> {
    let test = std::env::current_exe()?;
    let dir = test.parent().and_then(Path::parent).context("target directory")?;
    let program = dir.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    ensure!(program.exists(), "{}: build it with cargo build -p peft-core --examples", program.display());
    let mut command = Command::new(program);
    command.env("OMP_NUM_THREADS", "1"); // small work: a second thread costs more than it does
    Ok(command)
}

/// What it prints, if all goes well.
fn output(mut command: Command) -> Result<String> {
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A file is as short as is promised of it.
fn short(name: &str, lines: usize) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peft-core/examples").join(format!("{name}.rs"));
    let found = std::fs::read_to_string(file)?.lines().count();
    ensure!(found <= lines, "{name} has {found} lines");
    Ok(())
}

/// Trains on texts of three classes, and a second run knows them by name.
#[test]
fn the_classifier_learns_and_remembers() -> Result<()> {
    short("classifier", 60)?;
    let (model, work) = (tests::copied(&golden("bert/base"))?, tempfile::tempdir()?);
    std::fs::copy(golden("text/bert/tokenizer.json"), model.path().join("tokenizer.json"))?;
    let classes = [("red", "warm"), ("blue", "cold"), ("small", "tiny")];
    let texts = ["the cat is", "a dog was", "the mat is not", "what is", "who sat on a"];
    let row =
        |(text, (word, label))| format!("{}\n", json!({ "text": format!("{text} {word}"), "label": label }));
    let all = texts.iter().flat_map(|text| classes.map(|class| (text, class)));
    let (file, adapter) = (work.path().join("train.jsonl"), work.path().join("adapter"));
    std::fs::write(&file, all.map(row).collect::<String>())?;

    let run = |args: &[&str]| -> Result<String> {
        let mut command = example("classifier")?;
        command
            .arg(model.path())
            .arg(&adapter)
            .args(["the dog is red", "it was blue", "a cat is small"])
            .args(args);
        output(command)
    };
    let train = file.to_str().context("a path")?;
    let trained = run(&["--train", train, "--epochs", "150"])?;
    let judged = "warm: the dog is red\ncold: it was blue\ntiny: a cat is small\n";
    ensure!(trained.starts_with("epoch 1.00: loss ") && trained.ends_with(judged), "{trained}");
    ensure!(run(&[])? == judged, "{}", run(&[])?);

    // What is wrong is said in a line, as everywhere.
    let mut again = example("classifier")?;
    let again = again.arg(model.path()).arg(&adapter).args(["--train", train]).output()?;
    let error = String::from_utf8(again.stderr)?;
    ensure!(!again.status.success() && error.starts_with("Error: "), "{error}");
    ensure!(error.contains("is there already") && error.lines().count() == 1, "{error}");
    Ok(())
}

/// Guessing costs ln 2 = 0.69.
#[test]
fn a_model_of_ones_own_is_trained_saved_loaded_and_merged() -> Result<()> {
    short("own_model", 40)?;
    let dir = tempfile::tempdir()?;
    let mut command = example("own_model")?;
    command.current_dir(dir.path());
    let printed = output(command)?;
    let loss: f64 = printed.trim().strip_prefix("loss ").context(printed.clone())?.parse()?;
    ensure!(loss < 0.5, "{printed}");
    let tensors =
        peft_core::io::tensors::read(dir.path().join("runs/mlp").join(peft_core::io::adapter::TENSORS))?;
    let names = ["down.lora_A", "down.lora_B", "up.lora_A", "up.lora_B"];
    ensure!(
        tensors.keys().eq(&names.map(|n| format!("base_model.model.{n}.weight"))),
        "{:?}",
        tensors.keys()
    );
    Ok(())
}

#[test]
fn a_method_of_ones_own_is_counted() -> Result<()> {
    short("own_method", 25)?;
    let printed = output(example("own_method")?)?;
    let scales = 2 * (32 + 32 + 32 + 128) + 32;
    ensure!(
        printed == format!("trainable params: {scales} || all params: 29,220 || trainable%: 1.6427\n"),
        "{printed}"
    );
    Ok(())
}
