//! What a causal model learns to write, whatever form the file has.

use crate::error::{Error, Result};
use crate::text::messages::{marks, messages, tools};
use crate::text::records::{Record, has_fields, records, unread};
use crate::text::{dataset, source};
use crate::warning::Warning;
use serde_json::{Map, Value};
use std::fmt;
use std::path::{Path, PathBuf};

/// Alpaca's prompt for an instruction (Taori et al. 2023, <https://github.com/tatsu-lab/stanford_alpaca>).
pub const PROMPT: &str = "Below is an instruction that describes a task. Write a response that appropriately completes \
                          the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n";

/// Alpaca's prompt for an instruction with an `input` that is not empty.
pub const PROMPT_WITH_INPUT: &str = "Below is an instruction that describes a task, paired with an input that provides \
                                     further context. Write a response that appropriately completes the request.\n\n\
                                     ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n";

/// Texts that a causal model learns from.
#[derive(Debug, Clone, PartialEq)]
pub struct Corpus {
    pub path: PathBuf,
    /// What the rows were taken for.
    pub form: Form,
    pub rows: Vec<Example>,
    /// Fields that were not read, and whatever else should be said of the file.
    pub warnings: Vec<Warning>,
}

/// What the rows of a file are. One file is of one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One text a line.
    Lines,
    /// `text`, or a string.
    Text,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `instruction`, `input` and `output`.
    Alpaca,
    /// `messages` with `role` and `content`.
    Messages,
    /// `conversations` with `from` and `value`.
    Conversations,
}

/// One thing to learn.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// All of it is learned.
    Text(String),
    /// The completion is learned, which follows the prompt without anything between.
    Completion { prompt: String, completion: String },
    /// All messages but the first `given` are learned. Objects with `role` and `content`, and what else the model's chat
    /// template reads of them; `tools` as the template takes them.
    Chat { messages: Vec<Value>, given: usize, tools: Option<Value> },
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Lines => "one text a line",
            Form::Text => "texts (`text`)",
            Form::PromptCompletion => "prompts and completions (`prompt`, `completion`)",
            Form::Alpaca => "Alpaca's (`instruction`, `input`, `output`)",
            Form::Messages => "chats (`messages`)",
            Form::Conversations => "ShareGPT's chats (`conversations`)",
        })
    }
}

impl Form {
    /// In the order in which they are looked for: a file with the fields of two is taken for the first.
    const ALL: [Form; 5] =
        [Form::Messages, Form::Conversations, Form::PromptCompletion, Form::Alpaca, Form::Text];

    /// Fields that there must be, and others that are read.
    fn fields(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Form::Lines => (&[], &[]),
            Form::Text => (&["text"], &[]),
            Form::PromptCompletion => (&["prompt", "completion"], &["tools"]),
            Form::Alpaca => (&["instruction", "output"], &["input"]),
            Form::Messages => (&["messages"], &["tools"]),
            Form::Conversations => (&["conversations"], &["tools"]),
        }
    }

    fn of(record: &Record) -> Result<Self> {
        let pictures = ["image", "images"].into_iter().find(|name| match record.get(name) {
            Some(Value::Array(all)) => !all.is_empty(),
            other => other.is_some(),
        });
        if let Some(name) = pictures {
            return Err(record.wrong(format!("`{name}`: only text is supported")));
        }
        let complete = |form: &Form| form.fields().0.iter().all(|field| record.has(field));
        if let Some(form) = Self::ALL.into_iter().find(complete) {
            return Ok(form);
        }
        if record.has("chosen") && record.has("rejected") {
            let message = "`chosen` and `rejected`: learning from preferences is not supported; to learn the chosen \
                           ones, keep `prompt` and call `chosen` `completion`";
            return Err(record.wrong(message));
        }
        let null = record.names().contains("`text` (null)");
        let missing = if null { "`text` is null" } else { "no `text`" };
        let message =
            "nor `messages`, `conversations`, `prompt` and `completion`, `instruction` and `output`";
        Err(record.wrong(format!("{missing}, {message} ({})", record.names())))
    }

    fn example(self, record: &Record) -> Result<Example> {
        match self {
            Form::Lines | Form::Text => Ok(Example::Text(record.text("text")?.to_owned())),
            Form::Alpaca => alpaca(record),
            Form::PromptCompletion => match (record.get("prompt"), record.get("completion")) {
                (Some(Value::Array(_)), Some(Value::Array(_))) => {
                    let mut all = messages(record, "prompt", false)?;
                    let given = all.len();
                    all.extend(messages(record, "completion", false)?);
                    Ok(Example::Chat { messages: all, given, tools: tools(record)? })
                }
                _ => Ok(Example::Completion {
                    prompt: record.text("prompt")?.to_owned(),
                    completion: record.text("completion")?.to_owned(),
                }),
            },
            Form::Messages => Ok(Example::Chat {
                messages: messages(record, "messages", false)?,
                given: 0,
                tools: tools(record)?,
            }),
            Form::Conversations => {
                let messages = messages(record, "conversations", true)?;
                Ok(Example::Chat { messages, given: 0, tools: tools(record)? })
            }
        }
    }
}

impl Corpus {
    /// Reads a file: JSON if it is called `.jsonl`, `.json` or `.ndjson`, a table if it is called `.csv` or `.tsv`, else one
    /// text a line. Blank lines are skipped.
    ///
    /// # Errors
    /// A file that is no text in UTF-8, with the command that converts it; every wrong row by its line: no JSON, a field
    /// that is twice there or no string, none of the known forms, another form than the rows before; a file without rows.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = source::read(path)?;
        if !has_fields(path) {
            return lines(path, &text);
        }
        let records = records(path, &text, r#"{"text": "..."}"#)?;
        let (mut form, mut rows) = (None, Vec::new());
        for record in &records {
            let own = Form::of(record)?;
            let first = *form.get_or_insert(own);
            if own != first {
                return Err(record
                    .wrong(format!("is of {own}, the rows before of {first}: expected one form a file")));
            }
            rows.push(own.example(record)?);
        }
        let form = form.unwrap_or(Form::Text);
        let (needed, others) = form.fields();
        let mut warnings = unread(path, &records, &[needed, others].concat(), &form.to_string());
        warnings.extend(joined(path, &rows));
        warnings.extend(needed.iter().flat_map(|field| marks(path, &records, field)));
        Ok(Self { path: path.to_owned(), form, rows, warnings })
    }
}

/// Texts alone: those of a file of JSON (`.jsonl` or `.json`) or a table (`.csv`, `.tsv`) with a `text` or a `sentence` each, and the lines of any other
/// file. Blank lines are skipped. What else the rows have, labels say, is not looked at: these are texts to predict
/// something of.
///
/// # Errors
/// As [`Corpus::read`]; rows without a text; pairs of texts, which [`pairs`](super::pairs) reads.
pub fn texts(path: impl AsRef<Path>) -> Result<Vec<String>> {
    let path = path.as_ref();
    let file = source::read(path)?;
    if has_fields(path) {
        return dataset::texts(&records(path, &file, r#"{"text": "..."}"#)?);
    }
    let text = |row| if let Example::Text(text) = row { Some(text) } else { None };
    Ok(lines(path, &file)?.rows.into_iter().filter_map(text).collect())
}

/// One text a line. Nothing but a line feed, with or without a carriage return before it, ends a line: a line separator
/// (U+2028) or a form feed belongs to its text.
fn lines(path: &Path, text: &str) -> Result<Corpus> {
    let mut rows = Vec::new();
    let mut objects = true;
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if line.contains('\r') {
            let file = path.display();
            let message = format!(
                "line {number}: a carriage return that ends no line: expected lines that end in a line \
                                   feed; to convert it: tr '\\r' '\\n' < '{file}' > '{file}.lf'"
            );
            return Err(Error::format(path, message));
        }
        if !line.trim().is_empty() {
            objects &= line.trim_start().starts_with('{')
                && serde_json::from_str::<Map<String, Value>>(line).is_ok();
            rows.push(Example::Text(line.to_owned()));
        }
    }
    if rows.is_empty() {
        return Err(Error::format(path, "has no rows: expected one text a line"));
    }
    let message =
        "every line is an object in JSON, and read as text: to have its fields read, call the file .jsonl";
    let warnings = if objects { vec![Warning::new(path.display(), "lines", message)] } else { Vec::new() };
    Ok(Corpus { path: path.to_owned(), form: Form::Lines, rows, warnings })
}

fn alpaca(record: &Record) -> Result<Example> {
    let instruction = record.text("instruction")?;
    let input = if record.has("input") { record.text("input")? } else { "" };
    let prompt = match input {
        "" => PROMPT.replace("{instruction}", instruction),
        // The instruction is put in last: what it says of `{input}` is its own.
        input => match PROMPT_WITH_INPUT.split_once("{input}") {
            Some((before, after)) => [&before.replace("{instruction}", instruction), input, after].concat(),
            None => PROMPT_WITH_INPUT.to_owned(),
        },
    };
    Ok(Example::Completion { prompt, completion: record.text("output")?.to_owned() })
}

/// A prompt and a completion that run into each other.
fn joined(path: &Path, rows: &[Example]) -> Option<Warning> {
    let seam = rows.iter().find_map(|row| match row {
        Example::Completion { prompt, completion } => {
            let (before, after) = (prompt.chars().next_back()?, completion.chars().next()?);
            (before.is_alphanumeric() && after.is_alphanumeric()).then_some((prompt, completion))
        }
        _ => None,
    })?;
    let tail = |text: &str| text.chars().skip(text.chars().count().saturating_sub(20)).collect::<String>();
    let message = format!(
        "is joined to its prompt as it is, without a space: `{}{}`; one belongs into the file if it is meant",
        tail(seam.0),
        seam.1.chars().take(20).collect::<String>()
    );
    Some(Warning::new(path.display(), "completion", message))
}
