//! The program `finetune` as it is run: what they take, what they refuse before any work, and what they say.

use anyhow::{Context, Result, ensure};
use peft_core::io::write_json;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// Runs an example, which `cargo test` has built beside this test.
fn run<S: AsRef<std::ffi::OsStr>>(example: &str, arguments: &[S]) -> Result<Output> {
    let test = std::env::current_exe()?;
    let target = test.parent().and_then(Path::parent).context("no folder above the tests'")?;
    let program = target.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    let missing = || format!("{}: cargo build -p peft-core --examples", program.display());
    Command::new(&program).args(arguments).output().with_context(missing)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is said on stdout and on stderr.
fn said<S: AsRef<std::ffi::OsStr>>(example: &str, arguments: &[S]) -> Result<[String; 2]> {
    let out = run(example, arguments)?;
    let [stdout, stderr] = [text(&out.stdout), text(&out.stderr)];
    ensure!(out.status.success(), "{example}: {stdout}{stderr}");
    Ok([stdout, stderr])
}

fn refused<S: AsRef<std::ffi::OsStr>>(example: &str, arguments: &[S], parts: &[&str]) -> Result<()> {
    let out = run(example, arguments)?;
    let error = text(&out.stderr);
    ensure!(!out.status.success(), "{example}: was accepted");
    ensure!(!error.contains("panicked"), "{error}");
    ensure!(error.contains("error: "), "{error}");
    for part in parts {
        ensure!(error.contains(part), "the message lacks `{part}`: {error}");
    }
    Ok(())
}

/// The golden LLaMA with a tokenizer, and a template for chats.
fn llama() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("llama/base").join(name), dir.path().join(name))?;
    }
    std::fs::copy(golden("text/llama/tokenizer.json"), dir.path().join("tokenizer.json"))?;
    let template = "{% for m in messages %}{{ m.role }} {{ m.content }} {{ eos_token }}{% endfor %}";
    let settings = json!({ "eos_token": "</s>", "chat_template": template });
    write_json(dir.path().join("tokenizer_config.json"), &settings)?;
    Ok(dir)
}

#[test]
fn finetune_reads_what_there_is() -> Result<()> {
    let (model, out) = (llama()?, tempfile::tempdir()?);
    let tune = |data: &str, name: &str, more: &[&str]| -> Result<[String; 2]> {
        let path = out.path().join(name);
        std::fs::write(&path, data)?;
        let adapter = out.path().join("adapter");
        let places = [model.path(), &path, &adapter].map(|p| p.display().to_string());
        let arguments =
            places.iter().map(String::as_str).chain(["--epochs", "1", "--size", "2", "--overwrite"]);
        said("finetune", &arguments.chain(more.iter().copied()).collect::<Vec<_>>())
    };
    for (name, data, form) in [
        ("a.txt", "the cat sat\nthe dog ran\n", "one text a line: 2 rows"),
        ("a.json", r#"["the cat sat", "the dog ran"]"#, "texts (`text`): 2 rows"),
        ("a.jsonl", r#"{"prompt": "the cat", "completion": " sat"}"#, "prompts and completions"),
        ("a.jsonl", r#"{"instruction": "the cat", "input": "", "output": "sat"}"#, "Alpaca's"),
        (
            "a.jsonl",
            r#"{"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]}"#,
            "chats (`messages`): 1 rows",
        ),
    ] {
        let [stdout, stderr] = tune(data, name, &[])?;
        ensure!(stdout.starts_with(form) && stdout.contains("epoch 1: loss"), "{form}: {stdout}");
        ensure!(!stderr.contains("warning"), "{stderr}");
    }
    let [_, stderr] = tune(r#"{"text": "the cat sat", "label": 1}"#, "a.jsonl", &[])?;
    ensure!(stderr.contains("warning: ") && stderr.contains("label: is not read"), "{stderr}");
    let cut = "{\"prompt\": \"the cat sat\", \"completion\": \" on\"}\n{\"prompt\": \"a\", \"completion\": \" mat\"}";
    let [stdout, stderr] = tune(cut, "a.jsonl", &["--length", "4"])?;
    ensure!(stdout.contains("2 rows"), "{stdout}");
    ensure!(stderr.contains("1 of 2 are longer than 4 tokens: cut"), "{stderr}");
    ensure!(stderr.contains("1 of 2 are left out"), "{stderr}");
    Ok(())
}

/// Before any work: nothing is made.
#[test]
fn finetune_refuses_numbers_that_train_nothing() -> Result<()> {
    let (model, out) = (llama()?, tempfile::tempdir()?);
    let (data, adapter) = (out.path().join("a.txt"), out.path().join("adapter"));
    std::fs::write(&data, "the cat sat\n")?;
    let places = [model.path(), &data, &adapter].map(|p| p.display().to_string());
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    for (more, part) in [
        (&["--lr", "-1"][..], "positive number"),
        (&["--lr=-1e-3"], "positive number"),
        (&["--lr", "0"], "positive number"),
        (&["--lr", "nan"], "positive number"),
        (&["--lr", "inf"], "positive number"),
        (&["--epochs", "0"], "--epochs"),
        (&["--batch", "0"], "--batch"),
        (&["--size", "0"], "--size"),
        (&["--length", "1"], "--length"),
    ] {
        refused("finetune", &[&places[..], more].concat(), &[part])?;
        ensure!(!adapter.exists(), "{more:?}: an adapter was made");
    }
    let wrong = golden("llama/lora").display().to_string();
    refused("finetune", &[wrong.as_str(), places[1], places[2]], &["this is an adapter and no model"])?;
    Ok(())
}

/// The short ones, with what they print.
#[test]
fn adapters_are_combined_and_text_is_written() -> Result<()> {
    let (model, out) = (llama()?, tempfile::tempdir()?);
    let [model, out] = [model.path(), out.path()].map(|p| p.display().to_string());
    let [lora, rslora] = ["llama/lora", "llama/rslora"].map(|p| golden(p).display().to_string());
    let [text, _] = said("adapters", &[&model, &lora, &rslora, &out])?;
    ensure!(text.contains("of the change kept at 8 sites"), "{text}");
    let merged = format!("{out}/merged");
    let [text, _] = said("generate", &[&merged, "the cat", &format!("{out}/small")])?;
    ensure!(text.starts_with("[the model] the cat") && text.contains("[adapter 1] the cat"), "{text}");
    let [text, _] = said("fit", &["--model", &model])?;
    ensure!(text.starts_with("llama of 24,736 parameters") && text.contains("activations ="), "{text}");
    Ok(())
}
