//! The program as its users run it: tables, JSON lines, and what it says when something is wrong.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, beside the folder that this test is in. (Cargo names it in `CARGO_BIN_EXE_peft-bench`, but a variable
/// with a hyphen does not get through the shell script that wraps rustc.)
fn program() -> Result<Command> {
    let test = std::env::current_exe()?;
    let dir = test.parent().and_then(Path::parent).context("target directory")?;
    Ok(Command::new(dir.join(format!("peft-bench{}", std::env::consts::EXE_SUFFIX))))
}

fn bench(args: &[&str]) -> Result<Output> {
    Ok(program()?.args(args).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A BERT of the goldens, with a tokenizer of a dozen words, and text for it.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/bert/base");
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden.join(file), dir.path().join(file))?;
        }
        let words = ["[PAD]", "[UNK]", "red", "blue", "sun", "sea", "a", "the", "is", "of"];
        let vocab: Value = words
            .iter()
            .enumerate()
            .map(|(i, w)| ((*w).to_owned(), json!(i)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
        });
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string())?;
        let row = |i: usize| {
            let (word, label) = if i.is_multiple_of(2) { ("red sun", "warm") } else { ("blue sea", "cold") };
            format!(
                "{}\n",
                json!({ "text": format!("the {} is {word}", "a ".repeat(i % 5)), "label": label })
            )
        };
        std::fs::write(dir.path().join("train.jsonl"), (0..24).map(row).collect::<String>())?;
        std::fs::write(dir.path().join("test.jsonl"), (0..10).map(row).collect::<String>())?;
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, more: &[&str]) -> Result<Output> {
        let (model, train, test) =
            (self.dir.path().to_owned(), self.path("train.jsonl"), self.path("test.jsonl"));
        let mut command = program()?;
        command.arg("--model").arg(model).arg("--train").arg(train).arg("--test").arg(test).args([
            "--batch",
            "8",
            "--new-head",
        ]);
        Ok(command.args(more).output()?)
    }
}

#[test]
fn every_method_on_text_with_json_lines() -> Result<()> {
    let files = Files::new()?;
    let json = files.path("out/runs.jsonl");
    let plots = files.path("plots");
    let plots_text = plots.to_str().context("path")?;
    let out = files.run(&[
        "--plots",
        plots_text,
        "--seeds",
        "0,1",
        "--epochs",
        "2",
        "--jobs",
        "2",
        "--json",
        json.to_str().context("path")?,
    ])?;
    ensure!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    let lines = std::fs::read_to_string(&json)?;
    let records: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let methods = peft_bench::cases::CASES.len();
    ensure!(records.len() == 2 * methods, "{} records", records.len());
    for r in &records {
        let f = &r["figures"];
        ensure!(f["steps"] == 6 && r["versions"]["libtorch"] == "2.11.0" && r["seed"].is_i64(), "{r}");
        for figure in ["step_ms", "tokens_per_s", "peak_bytes", "file_bytes", "trainable", "train_loss"] {
            ensure!(f[figure].as_f64().is_some_and(|v| v > 0.0), "{figure} of {r}");
        }
        // Six steps are six parts of one step each.
        let losses = f["losses"].as_array().context("losses")?;
        ensure!(losses.len() == 6 && losses[5][0] == 6 && losses[5][1] == f["train_loss"], "{r}");
        ensure!(f["config"]["peft_type"].is_string(), "{r}");
    }
    let lora = records.iter().find(|r| r["method"] == "lora").context("lora")?;
    ensure!(lora["figures"]["merge_error"].as_f64().is_some_and(|e| e < 1e-5), "{lora}");
    ensure!(
        records.iter().filter(|r| r["method"] == "prompt").all(|r| r["figures"]["merge_error"].is_null())
    );
    let table = text(&out.stdout);
    ensure!(peft_bench::cases::CASES.iter().all(|c| table.contains(c.name)), "{table}");
    for picture in ["accuracy.svg", "accuracy.png", "losses.svg", "losses.png"] {
        ensure!(table.contains(picture) && plots.join(picture).exists(), "{picture}");
    }
    let curves = std::fs::read_to_string(plots.join("losses.svg"))?;
    ensure!(peft_bench::cases::CASES.iter().all(|c| curves.contains(c.name)), "{curves}");
    Ok(())
}

#[test]
fn a_run_that_diverges_is_a_row_and_the_others_go_on() -> Result<()> {
    let files = Files::new()?;
    let out = files.run(&["--seeds", "0", "--methods", "full,lora", "--lr", "1e30"])?;
    ensure!(!out.status.success());
    let table = text(&out.stdout);
    ensure!(table.contains("seed 0 failed: the loss is") && table.contains("diverged"), "{table}");
    ensure!(text(&out.stderr).contains("2 of 2 runs failed"), "{}", text(&out.stderr));
    Ok(())
}

#[test]
fn wrong_input_is_named() -> Result<()> {
    let files = Files::new()?;
    let fails = |more: &[&str], expected: &[&str]| -> Result<()> {
        let usual = ["--seeds", "0", "--methods", "lora", "--steps", "1"];
        // An option that is under test takes the place of the usual one.
        let usual = usual.chunks(2).filter(|pair| !more.contains(&pair[0])).flatten().copied();
        let out = files.run(&usual.chain(more.iter().copied()).collect::<Vec<_>>())?;
        let said = text(&out.stdout) + &text(&out.stderr);
        ensure!(!out.status.success(), "{said}");
        for part in expected {
            ensure!(said.contains(part), "expected `{part}` in: {said}");
        }
        Ok(())
    };
    fails(&["--methods", "lroa"], &["no method `lroa`", "lora"])?;
    fails(&["--seeds", "x"], &["--seeds x", "0..8"])?;
    fails(&["--seeds", "1,0,1"], &["--seeds 1,0,1", "twice"])?;
    fails(&["--jobs", "0"], &["--jobs", "positive"])?;
    fails(&["--device", "gpu"], &["cpu, cuda, cuda:N or auto"])?;

    let config = std::fs::read_to_string(files.path("config.json"))?;
    std::fs::write(files.path("config.json"), "{\"model_type\": \"gpt2\"}")?;
    fails(&[], &["config.json", "model_type", "`gpt2`", "expected `bert`"])?;
    std::fs::write(files.path("config.json"), config)?;

    std::fs::write(files.path("test.jsonl"), "{\"text\": \"a\", \"label\": \"warm\"}\n{\"text\": \"b\"}\n")?;
    fails(&[], &["test.jsonl", "line 2", "no `label`"])?;
    std::fs::write(files.path("test.jsonl"), "{\"text\": \"a\", \"label\": \"tepid\"}\n")?;
    fails(&[], &["test.jsonl", "row 1", "`tepid`", "cold, warm"])?;
    std::fs::write(files.path("test.jsonl"), "\n")?;
    fails(&[], &["test.jsonl", "no rows"])?;
    std::fs::remove_file(files.path("tokenizer.json"))?;
    std::fs::write(files.path("test.jsonl"), "{\"text\": \"a\", \"label\": \"warm\"}\n")?;
    fails(&[], &["tokenizer.json", "is not there"])?;
    std::fs::remove_file(files.path("test.jsonl"))?;
    fails(&[], &["test.jsonl", "no such file"])?;
    Ok(())
}

#[test]
fn long_texts_are_cut_and_counted() -> Result<()> {
    let files = Files::new()?;
    let long = format!("{}\n", json!({ "text": "red ".repeat(100), "label": "warm" }));
    std::fs::write(files.path("test.jsonl"), long)?;
    let out = files.run(&["--seeds", "0", "--methods", "lora", "--steps", "1"])?;
    let said = text(&out.stderr);
    ensure!(out.status.success(), "{}", text(&out.stdout));
    ensure!(said.contains("1 of 1 test texts are longer than the model's 64 positions"), "{said}");
    Ok(())
}

#[test]
fn list_and_help() -> Result<()> {
    let list = text(&bench(&["--list"])?.stdout);
    ensure!(
        peft_bench::cases::CASES.iter().all(|c| list.contains(c.name) && list.contains(c.about)),
        "{list}"
    );
    let help = text(&bench(&["--help"])?.stdout);
    for option in
        ["--methods", "--device", "--seeds", "--steps", "--json", "--plots", "--list", "--model", "Examples:"]
    {
        ensure!(help.contains(option), "{option}");
    }
    Ok(())
}

/// With small sizes, and all else as by default: no seed, or any.
#[test]
fn mixed_rows_are_timed_with_any_seed() -> Result<()> {
    let small =
        "--rows 2 --rank 2 --tokens 4 --rounds 1 --steps 1 --hidden 48 --layers 1 --ffn 64 --vocab 50 --json";
    for seed in [&[][..], &["--seed", "-3"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_mixed")).args(small.split(' ')).args(seed).output()?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
        let lines =
            text(&output.stdout).lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        ensure!(!lines.is_empty() && lines.iter().all(|line| line["way"].is_string()), "{lines:?}");
    }
    Ok(())
}
