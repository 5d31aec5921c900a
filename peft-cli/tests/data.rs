//! `peft data show`, as it is run.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// A model's configuration with a tokenizer beside it: its weights are not needed.
fn model(family: &str, tokenizer: &str, vocab: i64) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for file in fs::read_dir(golden("text").join(tokenizer))? {
        let file = file?;
        fs::copy(file.path(), dir.path().join(file.file_name()))?;
    }
    let path = golden(family).join("base/config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    config.as_object_mut().context("fields")?.insert("vocab_size".into(), vocab.into());
    fs::write(dir.path().join("config.json"), config.to_string())?;
    Ok(dir)
}

/// Whether it went well, and what it said on stdout and stderr.
fn show(model: &TempDir, name: &str, data: &str, more: &[&str]) -> Result<(bool, String, String)> {
    let path = model.path().join(name);
    fs::write(&path, data)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_peft"));
    let out = command.args(["data", "show"]).arg(model.path()).arg(&path).args(more).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes);
    Ok((out.status.success(), text(out.stdout)?, text(out.stderr)?))
}

const PROMPTS: &str = "{\"prompt\": \"the cat\", \"completion\": \" sat on a mat\"}\n{\"prompt\": \"is it\", \
                       \"completion\": \" not big and not small\"}\n";

#[test]
fn what_is_learned_of_rows() -> Result<()> {
    let llama = model("llama", "llama", 96)?;
    let (ok, stdout, stderr) = show(&llama, "a.jsonl", PROMPTS, &["--ids", "--rows", "1"])?;
    let expected = "row 1: 8 tokens, 5 learned\n<s> the cat⟦ sat on a mat </s>⟧\nids: 1 3 4 ⟦6 8 9 10 2⟧\n\nrows     \
                    2\ntokens   17, 11 of them learned (64.7 %)\nlengths  8 to 9, median 8, 95 % up to 9\ncut      0\n";
    ensure!(ok && stdout == expected, "{stdout}{stderr}");
    ensure!(stderr.contains("prompts and completions"), "{stderr}");
    let (_, stdout, stderr) = show(&llama, "a.jsonl", PROMPTS, &["--start", "2", "--length", "6", "-q"])?;
    ensure!(stdout.starts_with("row 2: 6 tokens, 3 learned, cut, without an end\n"), "{stdout}");
    ensure!(
        stdout.ends_with("cut      2\n") && stderr.contains("2 of 2 are longer than 6 tokens"),
        "{stderr}"
    );
    let (_, stdout, _) = show(&llama, "a.jsonl", PROMPTS, &["--length", "20", "--pack"])?;
    ensure!(stdout.contains("row 1: 17 tokens, 11 learned, 2 texts\n– text 1:\n<s> the cat⟦"), "{stdout}");
    ensure!(
        stdout.contains("\n– text 2:\n<s> is it⟦") && stdout.contains("1, of 2 texts, 85.0 % full"),
        "{stdout}"
    );
    Ok(())
}

#[test]
fn chats_and_tables_and_json() -> Result<()> {
    let chat = model("llama", "inst", 300)?;
    let said = |role: &str, content: &str| json!({ "role": role, "content": content });
    let messages =
        [said("user", "a"), said("assistant", "b\u{1b}[2J"), said("user", "c"), said("assistant", "d")];
    let row = json!({ "messages": messages }).to_string();
    let (ok, stdout, stderr) = show(&chat, "a.jsonl", &row, &[])?;
    // What a terminal would obey is seen, and not done.
    let text = "<s>[INST] a [/INST]⟦ b\\u{1b}[2J</s>⟧[INST] c [/INST]⟦ d</s>⟧\n";
    ensure!(ok && stdout.contains(text), "{stdout}{stderr}");
    let (_, stdout, _) = show(&chat, "a.jsonl", &row, &["--learn", "last"])?;
    ensure!(stdout.matches('⟦').count() == 1 && stdout.contains("⟦ d</s>⟧"), "{stdout}");

    let bert = model("bert", "bert", 96)?;
    let (_, stdout, _) = show(&bert, "a.csv", "text,label\n\"the cat\",good\nwho ran,bad\n", &[])?;
    ensure!(stdout.starts_with("row 1: 4 tokens, label good\n[CLS] the cat [SEP]\n"), "{stdout}");
    ensure!(stdout.ends_with("labels   bad 1, good 1\n"), "{stdout}");
    let table = "sentence1\tsentence2\tlabel\nthe cat\tthe dog\t2.5\nwho\tran\t1\n";
    let (_, stdout, _) = show(&bert, "a.tsv", table, &["--task", "regression", "--json", "--ids"])?;
    let lines: Vec<Value> = stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 3 && lines[0]["label"] == 2.5 && lines[1]["ids"][0] == 2, "{stdout}");
    ensure!(lines[2]["summary"]["labels"]["numbers"]["mean"] == 1.75, "{stdout}");
    Ok(())
}

#[test]
fn what_does_not_go_together() -> Result<()> {
    let (llama, bert) = (model("llama", "llama", 96)?, model("bert", "bert", 96)?);
    for (model, name, data, more, part) in [
        (&llama, "a.txt", "the cat\n", &["--start", "2"][..], "--start 2: there are 1 rows"),
        (&llama, "a.txt", "the cat\n", &["--pack"], "--length"),
        (&llama, "a.txt", "the cat\n", &["--task", "classes"], "expected causal"),
        (&llama, "a.txt", "the cat sat on\n", &["--pack", "--length", "3"], "without an end"),
        (&bert, "a.csv", "text,label\na,1\n", &["--task", "causal"], "an encoder"),
        (&bert, "a.csv", "text,label\na,1\n", &["--pack"], "--pack: is for"),
        (&bert, "a.csv", "text,label\na,2.5\n", &[], "line 2: `label` is 2.5"),
        (
            &llama,
            "a.jsonl",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
            &[],
            "no chat template",
        ),
    ] {
        let (_, stdout, stderr) = show(model, name, data, more)?;
        ensure!(format!("{stdout}{stderr}").contains(part), "{more:?}: {stdout}{stderr}");
    }
    Ok(())
}
