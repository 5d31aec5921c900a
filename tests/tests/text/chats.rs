//! Chats, by the model's own template.

use crate::{case, folder, given, reference, rows};
use anyhow::{Context, Result, ensure};
use peft_core::io::write_json;
use peft_core::text::{ChatTemplate, Corpus, Example, Form, TextEncoder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::limits;
use tests::refused;

fn template(name: &str) -> Result<ChatTemplate> {
    ChatTemplate::open(folder(name))?.with_context(|| format!("{name} has no template"))
}

/// Texts and ids are those of `apply_chat_template`.
#[test]
fn chats_are_transformers() -> Result<()> {
    let cases = reference("chats")?;
    let cases = cases.as_array().context("cases")?;
    ensure!(cases.len() == 16, "{} cases", cases.len());
    for case in cases {
        let name: String = rows(&case["dir"])?;
        let messages: Vec<Value> = rows(&case["messages"])?;
        let tools = Some(&case["tools"]).filter(|t| !t.is_null());
        let text = template(&name)?.render(&messages, tools, case["generate"] == true)?;
        ensure!(
            case["text"] == *text,
            "{name}:\n{text}\n--- and transformers\n{}",
            rows::<String>(&case["text"])?
        );
        let ids = TextEncoder::open(folder(&name), limits(300, 2000, 0))?.plain(&text)?;
        ensure!(ids == rows::<Vec<i64>>(&case["ids"])?, "{name}: {ids:?}");
    }
    Ok(())
}

#[test]
fn chats_of_files() -> Result<()> {
    let corpus = Corpus::read(case("messages.jsonl"))?;
    let said =
        [json!({ "role": "user", "content": "the cat" }), json!({ "role": "assistant", "content": "sat" })];
    let chat = Example::Chat { messages: said.to_vec(), given: 0, tools: None };
    ensure!(corpus.form == Form::Messages && corpus.rows == [chat.clone()], "{corpus:?}");
    let read = |text: &str| -> Result<peft_core::Result<Corpus>> {
        Ok(Corpus::read(given("a.jsonl", text)?.as_ref()))
    };
    let sharegpt =
        r#"{"conversations": [{"from": "human", "value": "the cat"}, {"from": "gpt", "value": "sat"}]}"#;
    ensure!(read(sharegpt)??.rows == [chat], "{:?}", read(sharegpt));
    let parts = r#"{"prompt": [{"role": "user", "content": "the cat"}], "completion": [{"role": "assistant", "content": "sat"}], "tools": "[{\"name\": \"f\"}]"}"#;
    let tools = Some(json!([{ "name": "f" }]));
    ensure!(
        read(parts)??.rows == [Example::Chat { messages: said.to_vec(), given: 1, tools }],
        "{:?}",
        read(parts)
    );
    for (text, parts) in [
        (r#"{"messages": []}"#, &["`messages` is not a list of messages"][..]),
        (r#"{"messages": "hello"}"#, &["`messages` is not a list"]),
        (r#"{"messages": ["hello"]}"#, &["message 1", "not an object"]),
        (r#"{"messages": [{"content": "a"}]}"#, &["message 1 of `messages`", "no `role`"]),
        (r#"{"messages": [{"role": "user", "content": 7}]}"#, &["`content` is 7"]),
        (r#"{"messages": [{"role": "user"}]}"#, &["`content` is null"]),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}"#,
            &["image", "only text"],
        ),
        (r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#, &["a part", "only text"]),
        (
            r#"{"images": ["a.png"], "messages": [{"role": "user", "content": "a"}]}"#,
            &["`images`", "only text"],
        ),
        (r#"{"conversations": [{"from": "bing", "value": "a"}]}"#, &["`from` is `bing`", "human"]),
        (r#"{"messages": [{"role": "user", "content": "a"}], "tools": ["f"]}"#, &["`tools`", "JSON schemas"]),
    ] {
        refused(text, read(text)?, &[parts, &["a.jsonl", "line 1"]].concat())?;
    }
    Ok(())
}

/// Marks for what is not to be learned change nothing here, and that is said.
#[test]
fn marks_of_messages() -> Result<()> {
    for (text, mark) in [
        (
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}"#,
            "weight",
        ),
        (r#"{"conversations": [{"from": "human", "value": "a", "train": false}]}"#, "train"),
        (
            r#"{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b", "weight": 0}]}"#,
            "weight",
        ),
    ] {
        let found = Corpus::read(given("a.jsonl", text)?.as_ref())?.warnings;
        let [warning] = found.as_slice() else { anyhow::bail!("{text}: {found:?}") };
        ensure!(warning.field == mark && warning.to_string().contains("is not read"), "{warning}");
    }
    let plain = r#"{"messages": [{"role": "user", "content": "a", "weight": null}], "images": []}"#;
    let found = Corpus::read(given("a.jsonl", plain)?.as_ref())?.warnings;
    ensure!(found.iter().all(|warning| warning.field == "images"), "{found:?}");
    Ok(())
}

#[test]
fn templates_that_refuse_or_are_none() -> Result<()> {
    let user = |content: Value| json!({ "role": "user", "content": content });
    let inst = template("inst")?;
    let twice = [user("a".into()), user("b".into())];
    refused("two turns", inst.render(&twice, None, false), &["tokenizer_config.json", "should take turns"])?;
    let python = template("python")?;
    let odd = json!({ "role": "user", "content": "a", "extra": { "a": true } });
    refused("an object", python.render(&[odd], None, false), &["it prints a map"])?;
    ensure!(ChatTemplate::open(folder("llama"))?.is_none(), "a template out of nothing");

    let dir = |config: Value| -> Result<TempDir> {
        let dir = tempfile::tempdir()?;
        write_json(dir.path().join("tokenizer_config.json"), &config)?;
        Ok(dir)
    };
    let opened = |config: Value| -> Result<peft_core::Result<Option<ChatTemplate>>> {
        Ok(ChatTemplate::open(dir(config)?.path()))
    };
    ensure!(opened(json!({ "chat_template": null }))??.is_none(), "null");
    refused(
        "no Jinja",
        opened(json!({ "chat_template": "{% if %}" }))?,
        &["tokenizer_config.json", "chat template"],
    )?;
    let unnamed = json!({ "chat_template": "{{ bos_token }}" });
    refused("a token", opened(unnamed)?, &["tokenizer_config.json", "bos_token", "null for none"])?;
    ensure!(opened(json!({ "chat_template": "{{ bos_token }}", "bos_token": null }))??.is_some(), "no token");
    let other = json!({ "chat_template": [{ "name": "rag", "template": "" }] });
    refused("no default", opened(other)?, &["chat_template", "default"])?;
    let two = [("default", "plain"), ("tool_use", "tools")].map(|(n, t)| json!({ "name": n, "template": t }));
    let two = opened(json!({ "chat_template": two }))??.context("two templates")?;
    ensure!(
        two.render(&[], Some(&json!([])), false)? == "tools" && two.render(&[], None, false)? == "plain",
        "{two:?}"
    );
    let today = opened(json!({ "chat_template": "{{ strftime_now('%d %b %Y') }}" }))??.context("a date")?;
    ensure!(today.render(&[], None, false)?.len() == 11, "{:?}", today.render(&[], None, false));
    Ok(())
}
