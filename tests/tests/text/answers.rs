//! What is learned of chats: the answers of the assistant.

use crate::corpora::given_tokens;
use crate::{folder, given, reference, rows};
use anyhow::{Context, Result, ensure};
use peft_core::hub::TokenIds;
use peft_core::io::write_json;
use peft_core::text::{ChatTemplate, Corpus, Example, Learn, Preparation, Prepared, Sequences, TextEncoder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{limits, refused};

/// A model directory with the byte tokenizer and this chat template.
fn model(template: &str) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    std::fs::copy(folder("chatml").join("tokenizer.json"), dir.path().join("tokenizer.json"))?;
    write_json(dir.path().join("tokenizer_config.json"), &json!({ "chat_template": template }))?;
    Ok(dir)
}

/// Messages of user and assistant by turns.
fn turns(words: &[&str]) -> Vec<Value> {
    let roles = ["user", "assistant"].iter().cycle();
    roles.zip(words).map(|(role, words)| json!({ "role": role, "content": words })).collect()
}

fn chat(messages: Vec<Value>, given: usize) -> Example {
    Example::Chat { messages, given, tools: None }
}

fn learn(dir: &TempDir, example: Example, learn: Learn) -> Result<peft_core::Result<Sequences>> {
    let template = ChatTemplate::open(dir.path())?.context("a template")?;
    let encoder = TextEncoder::open(dir.path(), limits(300, 2000, 0))?;
    Ok(encoder.examples(&[example], None, Some(&template), learn))
}

/// The text of a row, with brackets around what is learned.
fn shown(dir: &TempDir, data: &Sequences) -> Result<String> {
    let tokenizer = TextEncoder::open(dir.path(), limits(300, 2000, 0))?;
    let (mut text, mut open) = (String::new(), false);
    for (id, learned) in data.ids[0].iter().zip(&data.learned[0]) {
        if *learned != open {
            text.push(if open { '⟧' } else { '⟦' });
            open = *learned;
        }
        let piece = tokenizer.text(&[*id])?;
        // Special tokens print nothing.
        text.push_str(if piece.is_empty() { "¤" } else { &piece });
    }
    if open {
        text.push('⟧');
    }
    Ok(text)
}

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const PLAIN: &str = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n\\n' }}{% endfor %}\
                     {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
const MARKED: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}\n    \
                      {%- generation %}\n{{ m.content + '<|im_end|>' }}{% endgeneration %}\n{% else %}\
                      {{ m.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}";

/// The answer and the mark that ends its turn; nothing else, whatever the template.
#[test]
fn answers_alone() -> Result<()> {
    let messages = turns(&["a b", " c", "dé", "e f 🦀"]);
    let expected = "¤user\na b¤\n¤assistant\n⟦ c¤⟧\n¤user\ndé¤\n¤assistant\n⟦e f 🦀¤⟧\n";
    for template in [CHATML, MARKED] {
        let dir = model(template)?;
        let data = learn(&dir, chat(messages.clone(), 0), Learn::Answers)??;
        // Bytes of one character are printed one by one.
        let found = shown(&dir, &data)?;
        ensure!(letters(&found) == letters(expected), "{template}:\n{found}");
        let last = shown(&dir, &learn(&dir, chat(messages.clone(), 0), Learn::Last)??)?;
        let expected = expected.replacen("⟦ c¤⟧", " c¤", 1);
        ensure!(letters(&last) == letters(&expected), "{template}:\n{last}");
        let all = learn(&dir, chat(messages.clone(), 0), Learn::All)??;
        ensure!(all.ids == data.ids && all.learned[0].iter().all(|l| *l), "{all:?}");
    }
    // All tokens of a character are learned, and not the first alone as in transformers.
    let dir =
        model("{% for m in messages %}{% generation %}{{ m.content[:1] }}{% endgeneration %}b{% endfor %}")?;
    let data = learn(&dir, chat(turns(&["é", "é"]), 0), Learn::Answers)??;
    ensure!(data.learned[0] == [true, true, false, true, true, false], "{data:?}");
    // Where no mark ends the turn, the white space does.
    let dir = model(PLAIN)?;
    let found = shown(&dir, &learn(&dir, chat(turns(&["a", "b", "c", "d"]), 0), Learn::Answers)??)?;
    ensure!(found == "user: a\n\nassistant: ⟦b\n\n⟧user: c\n\nassistant: ⟦d\n\n⟧", "{found}");
    Ok(())
}

/// Without what tells the bytes of a character apart.
fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii() || "⟦⟧¤".contains(*c)).collect()
}

/// Masks are those of `apply_chat_template(.., return_assistant_tokens_mask=True)`, which TRL learns.
#[test]
fn marks_are_transformers() -> Result<()> {
    let cases = reference("answers")?;
    for case in cases.as_array().context("cases")? {
        let dir = tempfile::tempdir()?;
        let folder = folder(&rows::<String>(&case["dir"])?);
        std::fs::copy(folder.join("tokenizer.json"), dir.path().join("tokenizer.json"))?;
        let config = json!({ "chat_template": case["template"], "bos_token": "<s>", "eos_token": "</s>" });
        write_json(dir.path().join("tokenizer_config.json"), &config)?;
        let data = learn(&dir, chat(rows(&case["messages"])?, 0), Learn::Answers)??;
        let mask: Vec<u8> = rows(&case["mask"])?;
        ensure!(data.ids[0] == rows::<Vec<i64>>(&case["ids"])?, "{case}: {data:?}");
        ensure!(data.learned[0].iter().map(|l| u8::from(*l)).eq(mask), "{case}: {data:?}");
    }
    Ok(())
}

/// What follows a prompt is learned, whatever is asked for.
#[test]
fn a_prompt_and_its_completion() -> Result<()> {
    let dir = model(CHATML)?;
    for how in [Learn::Answers, Learn::Last, Learn::All] {
        let data = learn(&dir, chat(turns(&["a", "b", "c", "d"]), 1), how)??;
        let prompt = TextEncoder::open(dir.path(), limits(300, 2000, 0))?
            .plain("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n")?;
        ensure!(given_tokens(&data) == [prompt.len()], "{data:?}");
    }
    Ok(())
}

/// The template of a model that thinks, which says an answer otherwise once another one follows.
#[test]
fn answers_that_are_not_told_apart() -> Result<()> {
    let open = || -> Result<_> {
        let template = ChatTemplate::open(folder("chatml"))?.context("a template")?;
        Ok((TextEncoder::open(folder("chatml"), limits(300, 2000, 0))?, template))
    };
    let (encoder, template) = open()?;
    let encode = |messages: Vec<Value>, learn| {
        encoder.examples(&[chat(turns(&["a", "b"]), 0), chat(messages, 0)], None, Some(&template), learn)
    };
    let four = turns(&["a", "b", "c", "d"]);
    let parts = ["text 2: message 2", "{% generation %}", "`Learn::Last`", "`Learn::All`"];
    refused("two answers", encode(four.clone(), Learn::Answers), &parts)?;
    let last = encode(four.clone(), Learn::Last)?;
    let text = template.render(&four, None, false)?;
    let (before, _) = text.rsplit_once("<think>").context("no thinking")?;
    let learned = last.learned[1].iter().position(|l| *l);
    ensure!(learned == Some(encoder.plain(before)?.len()), "{learned:?} of {text}");
    ensure!(encode(four, Learn::All)?.learned[1].iter().all(|l| *l), "all of it");

    let nobody = vec![json!({ "role": "user", "content": "a" })];
    refused("no answer", encode(nobody, Learn::Answers), &["text 2", "no message of the assistant"])?;
    let chats = [chat(turns(&["a", "b"]), 0)];
    refused(
        "no template",
        encoder.examples(&chats, None, None, Learn::All),
        &["text 1", "chat_template.jinja"],
    )?;
    // An answer that is cut away leaves nothing; one that is cut, its beginning.
    let short = |longest| TextEncoder::open(folder("chatml"), limits(300, longest, 0));
    let answer = encoder.examples(&chats, None, Some(&template), Learn::Answers)?;
    let first = answer.learned[0].iter().position(|l| *l).context("nothing is learned")?;
    let at = i64::try_from(first)?;
    refused(
        "cut",
        short(at)?.examples(&chats, None, Some(&template), Learn::Answers),
        &["all 1 texts are cut", "nothing to learn"],
    )?;
    let cut = short(at + 2)?.examples(&chats, None, Some(&template), Learn::Answers)?;
    ensure!(cut.learned[0].iter().filter(|l| **l).count() == 2 && cut.documents[0][0].cut, "{cut:?}");
    Ok(())
}

/// A message with the code points that stand for marks is refused, and not learned wrongly.
#[test]
fn messages_that_look_like_marks() -> Result<()> {
    let dir = model(MARKED)?;
    let found = learn(&dir, chat(turns(&["a\u{fdd0}", "b"]), 0), Learn::Answers)?;
    refused("a noncharacter", found, &["text 1", "U+FDD0"])?;
    let dir = model("{{ messages[5].content }}")?;
    let found = learn(&dir, chat(turns(&["a", "b"]), 0), Learn::Answers)?;
    refused("a template that fails", found, &["text 1", "tokenizer_config.json"])?;
    Ok(())
}

/// What is cut, left out and never ends is said, once for all rows.
#[test]
fn what_is_said_of_a_corpus() -> Result<()> {
    let dir = model(CHATML)?;
    let template = ChatTemplate::open(dir.path())?;
    let said = |longest, rows: &[&[&str]], eos: &[i64]| -> Result<(Prepared, Vec<String>)> {
        let line = |words: &&[&str]| json!({ "messages": turns(words) }).to_string();
        let lines: Vec<String> = rows.iter().map(line).collect();
        let corpus = Corpus::read(given("a.jsonl", lines.join("\n"))?.as_ref())?;
        let encoder = TextEncoder::open(dir.path(), limits(300, longest, 0))?;
        let ids = TokenIds { eos: eos.to_vec(), pad: 0 };
        let prepared = encoder.prepare(&corpus, &ids, template.as_ref(), Preparation::default())?;
        let said = prepared.warnings.iter().map(|w| format!("{}: {}", w.field, w.message)).collect();
        Ok((prepared, said))
    };
    let long = "a".repeat(40);
    let rows: &[&[&str]] = &[&["a", "b"], &["a", &long], &[&long, "b"]];
    // The mark that ends a turn is token 2.
    let (prepared, warnings) = said(40, rows, &[2])?;
    ensure!(warnings.len() == 2 && warnings[0].contains("2 of 3 are longer than 40 tokens"), "{warnings:?}");
    ensure!(warnings[1].contains("1 of 3 are left out"), "{warnings:?}");
    ensure!(prepared.sequences.documents.concat().iter().map(|d| d.example).eq([0, 1]), "{prepared:?}");
    ensure!(said(200, rows, &[2])?.1.is_empty(), "all is well");
    let (_, warnings) = said(200, rows, &[0, 7])?;
    ensure!(warnings.len() == 1 && warnings[0].contains("3 of 3 are learned without an end"), "{warnings:?}");
    ensure!(warnings[0].contains("[0, 7]"), "{warnings:?}");

    let texts = Corpus::read(given("a.txt", "a b\nc\n")?.as_ref())?;
    let encoder = TextEncoder::open(dir.path(), limits(300, 20, 0))?;
    let prepare =
        |eos: Vec<i64>| encoder.prepare(&texts, &TokenIds { eos, pad: 0 }, None, Preparation::default());
    ensure!(prepare(vec![2, 3])?.warnings.is_empty(), "{:?}", prepare(vec![2, 3]));
    let lone = Corpus::read(given("b.txt", "a b\n")?.as_ref())?;
    let none = encoder.prepare(&lone, &TokenIds::default(), None, Preparation::default())?.warnings;
    ensure!(none.len() == 1 && none[0].message.contains("eos_token_id"), "{none:?}");
    Ok(())
}
