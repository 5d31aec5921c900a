//! Tokenizers in their older forms, against transformers: the same ids, and the same texts of those.

use anyhow::{Context, Result, ensure};
use peft_core::io::read_json;
use peft_core::text::TextEncoder;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tests::limits;
use tests::{golden, refused};

fn open(dir: &Path) -> peft_core::Result<TextEncoder> {
    TextEncoder::open(dir, limits(i64::MAX, i64::MAX, 0))
}

fn compare(dir: &Path) -> Result<usize> {
    let encoder = open(dir)?;
    let golden = read_json(dir.join("ids.json"))?;
    let rows = golden["texts"].as_array().context("no texts")?;
    for row in rows {
        let (text, ids, back) = (row[0].as_str(), row[1].as_array(), row[2].as_str());
        let (text, ids, back) = (text.context("text")?, ids.context("ids")?, back.context("text of ids")?);
        let ids: Vec<i64> = ids.iter().filter_map(Value::as_i64).collect();
        let found = encoder.ids(text)?;
        ensure!(found == ids, "{text:?}: {found:?}, expected {ids:?}");
        let found = encoder.text(&ids)?;
        ensure!(found == back, "{text:?}: back as {found:?}, expected {back:?}");
    }
    Ok(rows.len())
}

/// All classes; prefix spaces, special tokens from every file, added ones, tokens around a text.
#[test]
fn ids_are_transformers() -> Result<()> {
    let mut dirs = 0;
    for entry in std::fs::read_dir(golden("tokenizers"))? {
        let dir = entry?.path();
        let name = dir.display().to_string();
        ensure!(TextEncoder::exists(&dir), "{name}: no tokenizer");
        ensure!(compare(&dir).with_context(|| name.clone())? == 14, "{name}: other texts");
        dirs += 1;
    }
    ensure!(dirs == 11, "{dirs} tokenizers");
    Ok(())
}

/// Whoever wrote the two files, they are the same vocabulary.
#[test]
fn byte_order_marks_and_line_ends() -> Result<()> {
    let dir = changed("tokenizers/gpt2", &[])?;
    for name in ["vocab.json", "merges.txt"] {
        let text = std::fs::read_to_string(dir.path().join(name))?;
        std::fs::write(dir.path().join(name), format!("\u{feff}{}", text.replace('\n', "\r\n")))?;
    }
    ensure!(compare(dir.path())? == 14, "other texts");
    Ok(())
}

/// A copy of a golden, with files changed, or taken out where there is no content.
fn changed(name: &str, files: &[(&str, Option<&str>)]) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for entry in std::fs::read_dir(golden(name))? {
        let entry = entry?;
        std::fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
    }
    for (file, content) in files {
        match content {
            Some(content) => std::fs::write(dir.path().join(file), content)?,
            None => std::fs::remove_file(dir.path().join(file))?,
        }
    }
    Ok(dir)
}

fn wrong(name: &str, files: &[(&str, Option<&str>)], parts: &[&str]) -> Result<()> {
    let dir = changed(name, files)?;
    refused(
        &format!("{files:?}"),
        open(dir.path()),
        &[parts, &[&dir.path().display().to_string()]].concat(),
    )?;
    Ok(())
}

#[test]
fn a_tokenizer_json_wins() -> Result<()> {
    let dir = changed("tokenizers/gpt2", &[("tokenizer.json", Some("{}"))])?;
    refused("broken", open(dir.path()), &["tokenizer.json"])?;
    ensure!(!TextEncoder::exists(golden("llama/base")), "the tiny Llama has no tokenizer");
    Ok(())
}

#[test]
fn what_is_missing() -> Result<()> {
    wrong("llama/base", &[], &["tokenizer.json", "not there", "vocab.json", "merges.txt", "vocab.txt"])?;
    wrong("tokenizers/gpt2", &[("merges.txt", None)], &["merges.txt", "No such file"])?;
    let spm = [("vocab.txt", None), ("tokenizer.model", Some(""))];
    wrong(
        "tokenizers/bert",
        &spm,
        &["tokenizer.model", "sentencepiece", "AutoTokenizer", "save_pretrained"],
    )?;
    let classes = ["vocab.json", "GPT2Tokenizer", "RobertaTokenizer"];
    let none = [("config.json", None)];
    wrong("tokenizers/gpt2", &none, &[&classes[..], &["neither", "tokenizer_class"]].concat())?;
    let other = [("tokenizer_config.json", Some(r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#))];
    wrong("tokenizers/gpt2", &other, &[&classes[..], &["`PreTrainedTokenizer` is not one"]].concat())?;
    let bert = [("tokenizer_config.json", Some(r#"{"tokenizer_class": "BertTokenizer"}"#))];
    wrong("tokenizers/gpt2", &bert, &["vocab.txt", "No such file"])
}

/// transformers has no class of these files for a Llama; they are a byte-level BPE all the same.
#[test]
fn whole_words_of_a_llama() -> Result<()> {
    let name = "cases/tok_vocab_merges";
    let gpt2 = [("tokenizer_config.json", Some(r#"{"tokenizer_class": "GPT2Tokenizer"}"#))];
    for class in [&gpt2[..], &[]] {
        let dir = changed(name, class)?;
        let encoder = open(dir.path())?;
        ensure!(encoder.ids("a:[.]")? == [7, 21, 27, 30, 28]);
        // A vocabulary of whole words lacks letters, and a text would be what is left of it.
        refused("letters", encoder.ids("a cat"), &["vocab.json", "no token for ` `", "lose"])?;
        refused("letters", encoder.sequences(&["a:", "at"], None), &["vocab.json", "no token for `t`"])?;
    }
    Ok(())
}

#[test]
fn files_that_are_wrong() -> Result<()> {
    let merges = |text| [("merges.txt", Some(text))];
    wrong(
        "tokenizers/gpt2",
        &merges("#version: 0.2\nĠ Ġ\nt\n"),
        &["merges.txt", "line 3", "`t` is not two tokens"],
    )?;
    wrong("tokenizers/gpt2", &merges("a b c"), &["merges.txt", "line 1", "not two tokens"])?;
    wrong("tokenizers/gpt2", &merges("zz y"), &["merges.txt", "line 1", "`zz` is not in vocab.json"])?;
    // Longer than every token there is.
    let (short, pair) = (r#"{"ab": 0, "cd": 1}"#, "ab cd");
    let files = [("vocab.json", Some(short)), ("merges.txt", Some(pair))];
    wrong("tokenizers/gpt2", &files, &["merges.txt", "line 1", "`abcd` is not in vocab.json"])?;
    for vocab in ["[]", r#"{"a": -1}"#, r#"{"a": "b"}"#, r#"{"a": 4294967296}"#, "{"] {
        wrong("tokenizers/gpt2", &[("vocab.json", Some(vocab))], &["vocab.json", "ids by token"])?;
    }
    wrong("tokenizers/bert", &[("vocab.txt", Some("a\nb\n"))], &["vocab.txt", "`[UNK]`", "unk_token"])?;
    let config = |text| [("tokenizer_config.json", Some(text))];
    wrong(
        "tokenizers/gpt2",
        &config(r#"{"add_prefix_space": "yes"}"#),
        &["add_prefix_space", "true or false"],
    )?;
    wrong(
        "tokenizers/gpt2",
        &config(r#"{"eos_token": 5}"#),
        &["tokenizer_config.json", "eos_token", "5 is no token"],
    )?;
    wrong("tokenizers/roberta", &config(r#"{"sep_token": null}"#), &["sep_token", "is missing"])?;
    let decoder = r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#;
    wrong("tokenizers/gpt2", &config(decoder), &["added_tokens_decoder", "x"])?;
    wrong(
        "tokenizers/gpt2",
        &[("added_tokens.json", Some(r#"{"a": "b"}"#))],
        &["added_tokens.json", "is no id"],
    )
}

/// The tokenizers crate panics over the first of these.
#[test]
fn a_tokenizer_json_with_wrong_merges() -> Result<()> {
    let file = |merges: Value, prefix: Value| {
        let model = json!({ "type": "BPE", "vocab": { "a": 0, "b": 1, "##b": 2, "ab": 3, "abab": 4 }, "merges": merges,
            "continuing_subword_prefix": prefix });
        json!({ "version": "1.0", "added_tokens": [], "model": model }).to_string()
    };
    for (merges, prefix, whole) in [
        (json!(["abab ab"]), Value::Null, "`abab ab` is not a pair whose whole"),
        (json!([["a", "b"], ["ab", "abab"]]), Value::Null, "merge 2: `ab abab`"),
        (json!(["a ##b", "a b"]), json!("##"), "merge 2: `a b`"),
        (json!(["ab"]), Value::Null, "merge 1: `ab`"),
    ] {
        let dir = changed("tokenizers/gpt2", &[("tokenizer.json", Some(&file(merges, prefix)))])?;
        refused(whole, open(dir.path()), &["tokenizer.json", "model.merges", whole, "vocab"])?;
    }
    for (merges, prefix) in [(json!(["a b", "ab ab"]), Value::Null), (json!([["a", "##b"]]), json!("##"))] {
        let dir = changed("tokenizers/gpt2", &[("tokenizer.json", Some(&file(merges, prefix)))])?;
        ensure!(open(dir.path())?.ids("ab")? == [3]);
    }
    Ok(())
}
