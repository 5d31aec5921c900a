//! What the assistant writes in the text of a chat: what is learned of it.

use crate::error::{Error, Result};
use crate::text::ChatTemplate;
use crate::text::render::{CLOSE, OPEN};
use serde_json::Value;
use std::ops::Range;

/// What is learned of a chat. What follows a prompt that is there as such is learned as a whole, whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Learn {
    /// Every answer of the assistant, with the end of its turn.
    #[default]
    Answers,
    /// The last answer alone: of models whose template leaves out the thinking of earlier ones, say.
    Last,
    /// All of it, what the user says and the template's own words too.
    All,
}

/// A chat in the form of its template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    pub text: String,
    /// The bytes of `text` that the assistant writes, an answer each.
    pub written: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// The text of a chat, and what of it the assistant writes: all of its answers, or the last one.
    ///
    /// A template may mark it with `{% generation %}` and `{% endgeneration %}`, as TRL's `assistant_only_loss` wants it.
    /// Without marks an answer is what the chat up to it has more than the messages before with the assistant's name
    /// written behind; white space that only separates it from the next turn is none of it.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]; a template without marks that says earlier messages otherwise once others follow, so
    /// that an answer is not found in the whole.
    pub fn answers(&self, messages: &[Value], tools: Option<&Value>, last: bool) -> Result<Answers> {
        let text = self.render(messages, tools, false)?;
        let written = match self.marked(messages, tools)? {
            Some(marked) => {
                let mut all = by_marks(&text, &marked)?;
                if last {
                    all.drain(..all.len().saturating_sub(1));
                }
                all
            }
            None => {
                let answers = (0..).zip(messages).filter(|(_, m)| role(m) == Some("assistant"));
                let answers: Vec<(usize, &Value)> = answers.collect();
                let skipped = if last { answers.len().saturating_sub(1) } else { 0 };
                let written = answers.iter().skip(skipped).map(|(at, answer)| {
                    let parts = Parts { text: &text, messages, tools, last };
                    self.written(&parts, *at, answer)
                });
                written.collect::<Result<_>>()?
            }
        };
        Ok(Answers { text, written })
    }

    /// Where the answer that is message `at` stands in the whole text.
    fn written(&self, chat: &Parts<'_>, at: usize, answer: &Value) -> Result<Range<usize>> {
        let until = |end: usize, generate| {
            let messages = chat.messages.get(..end).unwrap_or_default();
            self.render(messages, chat.tools, generate)
        };
        let number = at.saturating_add(1);
        let before = until(at, true).map_err(|e| Error::Input(format!("before message {number}: {e}")))?;
        let whole = if number == chat.messages.len() {
            chat.text.to_owned()
        } else {
            until(number, false).map_err(|e| Error::Input(format!("up to message {number}: {e}")))?
        };
        let Some(answered) = whole.strip_prefix(before.as_str()).filter(|_| chat.text.starts_with(&whole))
        else {
            let other = if chat.last { "" } else { "the last answer alone (`Learn::Last`) or " };
            let message = format!(
                "message {number}: the chat template says what comes before it or itself otherwise in the whole chat (as \
                 those that leave out earlier thinking), so that what the assistant writes is not known: put \
                 {{% generation %}} and {{% endgeneration %}} around it in the template, or have {other}all of a chat \
                 learned (`Learn::All`)"
            );
            return Err(Error::Input(message));
        };
        let kept = answered.trim_end();
        // Behind a mark that ends the turn white space belongs to nobody; without a mark it is what ends the turn.
        let own = content(answer).trim_end();
        let unmarked = !own.is_empty() && kept.ends_with(own);
        let length = if unmarked { answered.len() } else { kept.len() };
        Ok(before.len()..before.len().saturating_add(length))
    }
}

/// A chat, and the whole text of it.
struct Parts<'a> {
    text: &'a str,
    messages: &'a [Value],
    tools: Option<&'a Value>,
    last: bool,
}

fn role(message: &Value) -> Option<&str> {
    message.get("role")?.as_str()
}

/// The words that a message ends with.
fn content(message: &Value) -> &str {
    let text = match message.get("content") {
        Some(Value::Array(parts)) => parts.last().and_then(|part| part.get("text")),
        content => content,
    };
    text.and_then(Value::as_str).unwrap_or_default()
}

/// What is between marks, as parts of the text without them.
fn by_marks(text: &str, marked: &str) -> Result<Vec<Range<usize>>> {
    let (mut plain, mut from, mut parts) = (String::new(), None, Vec::new());
    for c in marked.chars() {
        match c {
            OPEN => from = Some(plain.len()),
            CLOSE => parts.extend(from.take().map(|from: usize| from..plain.len())),
            c => plain.push(c),
        }
    }
    if plain == text {
        return Ok(parts);
    }
    let message = "what the chat template marks as generated is not to be found in the text that it makes: it reads what it \
                   has marked, or a message has U+FDD0 or U+FDD1 in it, which are no characters";
    Err(Error::Input(message.into()))
}
