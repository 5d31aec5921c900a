//! The short examples over a causal model, as they are run.

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

/// 120 steps, of which the second run takes those behind the checkpoint alone.
#[test]
fn a_training_goes_on_where_it_was() -> Result<()> {
    let (model, out) = (llama()?, tempfile::tempdir()?);
    let data = out.path().join("a.txt");
    std::fs::write(&data, "the cat sat\nthe dog ran\n")?;
    let adapter = out.path().join("adapter");
    let places = [model.path(), &data, &adapter].map(|p| p.display().to_string());
    let train = || said("finetune", &[places[0].as_str(), &places[1], &places[2], "--epochs", "120"]);
    let [first, _] = train()?;
    ensure!(first.starts_with("step 1 of 120: loss ") && first.contains("step 120 of 120"), "{first}");
    let weights = adapter.join("adapter_model.safetensors");
    let expected = std::fs::read(&weights)?;
    std::fs::remove_file(&weights)?;
    std::fs::remove_file(adapter.join("adapter_config.json"))?;
    let [second, _] = train()?;
    ensure!(second.starts_with("step 101 of 120: loss "), "{second}");
    ensure!(std::fs::read(&weights)? == expected, "another adapter");
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
