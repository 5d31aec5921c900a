//! What a causal model learns, by the form of the file.

use crate::{case, folder, given, reference, rows};
use anyhow::{Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::text::{Corpus, Example, Form, Learn, PROMPT, PROMPT_WITH_INPUT, Sequences, TextEncoder};
use peft_core::train::next_token_loss;
use peft_core::{Model, Pass};
use tch::Device;
use tests::limits;
use tests::refused;

fn texts(corpus: &Corpus) -> Vec<&str> {
    corpus.rows.iter().map(|row| if let Example::Text(text) = row { text } else { "(no text)" }).collect()
}

/// How many tokens each row begins with that are not learned; all others are.
pub(crate) fn given_tokens(data: &Sequences) -> Vec<usize> {
    let given = |row: &Vec<bool>| row.iter().take_while(|learned| !**learned).count();
    data.learned
        .iter()
        .map(|row| if row[given(row)..].contains(&false) { usize::MAX } else { given(row) })
        .collect()
}

fn completion(prompt: impl Into<String>, completion: &str) -> Example {
    Example::Completion { prompt: prompt.into(), completion: completion.to_owned() }
}

#[test]
fn two_strings_are_two_texts() -> Result<()> {
    let corpus = Corpus::read(case("strings2.json"))?;
    ensure!(corpus.form == Form::Text && texts(&corpus) == ["the cat", "the dog"], "{corpus:?}");
    Ok(())
}

#[test]
fn arrays_objects_over_lines_and_lines_are_the_same() -> Result<()> {
    let expected = Corpus::read(case("array.json"))?.rows;
    ensure!(expected == ["the cat sat", "the dog ran"].map(|t| Example::Text(t.into())), "{expected:?}");
    for (name, text) in [
        ("lines.jsonl", "{\"text\": \"the cat sat\"}\r\n\r\n{\"text\": \"the dog ran\"}"),
        ("array.jsonl", r#"[{"text": "the cat sat"}, {"text": "the dog ran"}]"#),
        (
            "pretty.json",
            "[\n  {\n    \"text\": \"the cat sat\"\n  },\n  {\n    \"text\": \"the dog ran\"\n  }\n]\n",
        ),
        ("objects.json", "{\n  \"text\": \"the cat sat\"\n}\n{\n  \"text\": \"the dog ran\"\n}\n"),
        ("one_line.JSON", r#"{"text": "the cat sat"} {"text": "the dog ran"}"#),
        ("strings.ndjson", "\"the cat sat\"\n\"the dog ran\"\n"),
        (
            "extra.jsonl",
            "{\"id\": 1, \"text\": \"the cat sat\"}\n{\"text\": \"the dog ran\", \"idx\": 4, \"meta\": {}}\n",
        ),
    ] {
        let corpus = Corpus::read(given(name, text)?.as_ref())?;
        ensure!(corpus.rows == expected && corpus.warnings.is_empty(), "{name}: {corpus:?}");
    }
    Ok(())
}

#[test]
fn alpaca_has_its_prompts() -> Result<()> {
    let corpus = Corpus::read(case("alpaca.json"))?;
    let bare = PROMPT.replace("{instruction}", "the cat");
    let full = PROMPT_WITH_INPUT.replace("{instruction}", "the dog").replace("{input}", "is");
    ensure!(bare.ends_with("### Instruction:\nthe cat\n\n### Response:\n"), "{bare}");
    ensure!(full.ends_with("### Instruction:\nthe dog\n\n### Input:\nis\n\n### Response:\n"), "{full}");
    ensure!(corpus.form == Form::Alpaca && corpus.warnings.is_empty(), "{corpus:?}");
    ensure!(corpus.rows == [completion(bare, "sat on a mat"), completion(full, "far away")], "{corpus:?}");
    // The words of a row are put in as they are.
    let row = r#"{"instruction": "say {input}", "input": "{instruction}", "output": "x"}"#;
    let corpus = Corpus::read(given("a.jsonl", row)?.as_ref())?;
    let Example::Completion { prompt, .. } = &corpus.rows[0] else { anyhow::bail!("{corpus:?}") };
    ensure!(prompt.contains("Instruction:\nsay {input}\n\n### Input:\n{instruction}\n"), "{prompt}");
    Ok(())
}

#[test]
fn prompts_and_completions_are_joined_as_they_are() -> Result<()> {
    let corpus = Corpus::read(case("prompt_completion.jsonl"))?;
    ensure!(corpus.rows == [completion("the cat", "sat")], "{corpus:?}");
    let said = corpus.warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
    ensure!(said.len() == 1 && said[0].contains("`the catsat`"), "{said:?}");
    let spaced = given("a.jsonl", r#"{"prompt": "the cat", "completion": " sat"}"#)?;
    ensure!(Corpus::read(spaced.as_ref())?.warnings.is_empty(), "a warning about a space that is there");
    Ok(())
}

#[test]
fn what_nothing_reads_is_said() -> Result<()> {
    let said = |text: &str| -> Result<(Form, Vec<String>)> {
        let corpus = Corpus::read(given("a.jsonl", text)?.as_ref())?;
        Ok((corpus.form, corpus.warnings.into_iter().map(|w| w.field).collect()))
    };
    let alpaca = r#"{"instruction": "a", "output": "b", "text": "a b", "system": "c", "id": 3}"#;
    ensure!(said(alpaca)? == (Form::Alpaca, vec!["system".into(), "text".into()]), "{:?}", said(alpaca)?);
    let labelled = "{\"text\": \"a\"}\n{\"text\": \"a\", \"label\": 1}";
    ensure!(said(labelled)? == (Form::Text, vec!["label".into()]), "{:?}", said(labelled)?);
    let lines = given("a.txt", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n")?;
    let corpus = Corpus::read(lines.as_ref())?;
    ensure!(corpus.form == Form::Lines && corpus.warnings.len() == 1, "{corpus:?}");
    ensure!(corpus.warnings[0].to_string().contains(".jsonl"), "{corpus:?}");
    Ok(())
}

#[test]
fn rows_that_are_none_are_named() -> Result<()> {
    for (text, parts) in [
        ("{\"text\": \"a\"}\n{\"text\": null}", &["line 2", "`text` is null"][..]),
        ("{\"text\": \"a\"}\n{\"text\": 7}", &["line 2", "`text` is 7", "expected a string"]),
        ("{\"text\": [\"a\", \"b\"]}", &["line 1", r#"`text` is ["a","b"]"#, "expected a string"]),
        ("{\"text\": \"a\", \"text\": \"b\"}", &["line 1", "`text` is there twice"]),
        ("[\"a\", \"b\"]\n[\"c\", \"d\"]", &["line 1", "an array as a row"]),
        ("[[\"a\", \"b\"]]", &["row 1 (line 1)", "an array as a row"]),
        ("[\n\"a\",\n7]", &["row 2 (line 3)", "7", "an object or a string"]),
        ("[{\"text\": \"a\"},\n{\"text\": \"b\"]", &["line 2"]),
        ("[{\"text\": \"a\"}", &["EOF", "line 1"]),
        ("{\"text\": \"a\"\n{\"text\": \"b\"}\n", &["line 1", "EOF"]),
        ("{\n\"text\": \"a\"\n}\n{\n\"text\" \"b\"\n}\n", &["line 5", "expected `:`"]),
        ("7", &["line 1", "7"]),
        ("{\"data\": [{\"text\": \"a\"}]}", &["line 1", "no `text`", "`data` (a list)"]),
        ("{\"question\": \"a\", \"answer\": \"b\"}", &["no `text`", "`question`, `answer`", "`instruction`"]),
        ("{\"chosen\": \"a\", \"rejected\": \"b\"}", &["line 1", "preferences", "`completion`"]),
        ("{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}", &["preferences"]),
        (
            "{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}",
            &["line 2", "`completion`", "one form a file"],
        ),
        ("{\"image\": \"a.png\", \"text\": \"a\"}", &["line 1", "`image`", "only text"]),
        ("{\"text\": \"\\ud83d\"}", &["line 1", "halves of a character"]),
        ("{\"text\": \"\\ud83d and\"}", &["line 1", "halves of a character"]),
        ("{\"prompt\": \"a\", \"completion\": 7}", &["line 1", "`completion` is 7"]),
        ("{\"instruction\": \"a\", \"output\": \"b\", \"input\": 7}", &["`input` is 7"]),
        ("{}", &["line 1", "it has no fields"]),
        ("[]", &["no rows"]),
        ("\u{feff}", &["no rows"]),
    ] {
        let file = given("a.json", text)?;
        let parts = [parts, &["a.json"]].concat();
        refused(text, Corpus::read(file.as_ref()), &parts)?;
    }
    Ok(())
}

/// Ids, labels and loss of prompts and completions are TRL's and transformers'.
#[test]
fn a_prompt_is_not_learned() -> Result<()> {
    let expected = reference("completions")?;
    let pairs: Vec<[String; 2]> = rows(&expected["rows"])?;
    let examples: Vec<Example> = pairs.iter().map(|[p, c]| completion(p, c)).collect();
    let encoder = TextEncoder::open(folder("llama"), limits(96, 64, 0))?;
    let data = encoder.examples(&examples, Some(2), None, Learn::Answers)?;
    let (ids, labels): (Vec<Vec<i64>>, Vec<Vec<i64>>) = (rows(&expected["ids"])?, rows(&expected["labels"])?);
    ensure!(data.ids == ids && (data.truncated, data.dropped) == (0, 0), "{data:?}");
    let (batch, found) = data.batch(&[0, 1, 2, 3], Device::Cpu)?;
    for (row, labels) in Vec::<Vec<i64>>::try_from(&found)?.iter().zip(labels) {
        let (own, padding) = row.split_at(labels.len());
        // The first label is that of no prediction.
        ensure!(own[1..] == labels[1..] && padding.iter().all(|l| *l == -100), "{row:?}, not {labels:?}");
    }
    let peft = hub::open(tests::golden("llama").join("base"), Device::Cpu, Head::Stored)?.peft;
    let logits = peft.view(&[])?.forward(&batch, Pass::eval())?;
    let loss = f64::try_from(next_token_loss(&logits, &found)?)?;
    let python: f64 = rows(&expected["loss"])?;
    ensure!((loss - python).abs() < 1e-5 * python, "{loss}, not {python}");
    Ok(())
}

#[test]
fn completions_that_are_cut() -> Result<()> {
    let encode = |longest, examples: &[Example]| -> Result<peft_core::Result<Sequences>> {
        Ok(TextEncoder::open(folder("llama"), limits(96, longest, 0))?.examples(
            examples,
            Some(2),
            None,
            Learn::Answers,
        ))
    };
    let examples =
        [completion("the cat sat on", " a mat"), completion("the", " dog ran"), Example::Text("a".into())];
    let data = encode(6, &examples)??;
    ensure!((data.truncated, data.dropped, data.len()) == (1, 0, 3), "{data:?}");
    ensure!(data.ids[0] == [1, 3, 4, 6, 8, 9] && given_tokens(&data) == [5, 2, 0], "{data:?}");
    // Of the first nothing is left to learn.
    let data = encode(5, &examples)??;
    ensure!((data.truncated, data.dropped, data.len()) == (1, 1, 2), "{data:?}");
    ensure!(data.ids[0] == [1, 3, 5, 7, 2], "{data:?}");
    refused("nothing", encode(5, &examples[..1])?, &["all 1 texts", "5 tokens", "nothing to learn"])?;
    let empty = TextEncoder::open(folder("llama"), limits(96, 5, 0))?.examples(
        &[completion("the cat", "")],
        None,
        None,
        Learn::Answers,
    );
    refused("no completion", empty, &["text 1", "nothing to learn"])?;
    Ok(())
}
