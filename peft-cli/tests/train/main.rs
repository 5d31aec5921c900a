//! `peft train` and `peft check`, as their users run them.

mod refused;
mod runs;

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
