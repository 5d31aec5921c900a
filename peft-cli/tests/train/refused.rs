//! What is refused before anything is trained or lost.

use crate::*;

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
