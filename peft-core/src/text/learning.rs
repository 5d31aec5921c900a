//! What a causal model learns, as token ids.

use crate::error::{Error, Result};
use crate::text::answers::{Answers, Learn};
use crate::text::sequences::{Document, Sequences};
use crate::text::{ChatTemplate, Example, TextEncoder};
use serde_json::Value;
use std::ops::Range;

impl TextEncoder {
    /// Token ids of texts that a causal model learns to write; `end` is put behind each that is not cut, so that it
    /// learns to stop.
    ///
    /// # Errors
    /// A text of one token, of which there is nothing to predict; a token id beyond the model's vocabulary.
    pub fn sequences<T: AsRef<str>>(&self, texts: &[T], end: Option<i64>) -> Result<Sequences> {
        let mut all = Sequences::new(self.pad);
        for (example, text) in texts.iter().enumerate() {
            self.add(&mut all, example, self.whole(text.as_ref(), end)?)?;
        }
        Ok(all)
    }

    /// Token ids of what a causal model learns, as TRL has them: of texts and completions as in
    /// [`TextEncoder::sequences`], and of chats in the form that `template` gives them, which ends them itself.
    ///
    /// A prompt is not learned: what is learned begins where the ids of prompt and completion part from those of the prompt
    /// alone. Of a chat `learn` is learned, by default [what the assistant writes](ChatTemplate::answers): every token that
    /// has a part of it. What is cut off is not learned either; rows of which nothing is left are counted in
    /// [`Sequences::dropped`].
    ///
    /// # Errors
    /// As [`TextEncoder::sequences`]; a chat without a template, and what the template says to it; one without an answer;
    /// answers that the template does not tell apart; a cut that leaves nothing to learn of any row.
    pub fn examples(
        &self,
        examples: &[Example],
        end: Option<i64>,
        template: Option<&ChatTemplate>,
        learn: Learn,
    ) -> Result<Sequences> {
        let mut all = Sequences::new(self.pad);
        let mut bare = None;
        for (example, row) in examples.iter().enumerate() {
            let place = |e| Error::Input(format!("text {}: {e}", example.saturating_add(1)));
            let tokens = match row {
                Example::Text(text) => self.whole(text, end)?,
                Example::Completion { prompt, completion } => {
                    let (ids, prompt) =
                        (self.ids(&[prompt.as_str(), completion].concat())?, self.ids(prompt)?);
                    self.after(ids, &prompt, end)
                }
                Example::Chat { messages, given, tools } => {
                    let template = template.ok_or_else(|| no_template(example))?;
                    let render = |messages: &[Value], prompt| {
                        self.plain(&template.render(messages, tools.as_ref(), prompt).map_err(place)?)
                    };
                    let prompt = messages.get(..*given).filter(|given| !given.is_empty());
                    match (prompt, learn) {
                        (Some(prompt), _) => {
                            self.after(render(messages, false)?, &render(prompt, true)?, None)
                        }
                        (None, Learn::All) => self.after(render(messages, false)?, &[], None),
                        (None, Learn::Answers | Learn::Last) => {
                            let last = learn == Learn::Last;
                            let chat = template.answers(messages, tools.as_ref(), last).map_err(place)?;
                            let bare = bare.get_or_insert_with(|| self.bare());
                            self.answered(bare, &chat).map_err(place)?
                        }
                    }
                }
            };
            self.add(&mut all, example, tokens)?;
        }
        if all.is_empty() && all.dropped > 0 {
            let message = format!(
                "all {} texts are cut to {} tokens, which leaves nothing to learn",
                all.dropped, self.longest
            );
            return Err(Error::Input(message));
        }
        Ok(all)
    }

    /// All of a text.
    fn whole(&self, text: &str, end: Option<i64>) -> Result<Tokens> {
        let (ids, cut) = self.text_ids(text)?;
        let learned = vec![true; ids.len()];
        Ok(self.ended(Tokens { ids, learned, cut }, end))
    }

    /// What comes after a beginning that is the prompt's, cut as TRL does: whatever is beyond the length.
    fn after(&self, ids: Vec<i64>, prompt: &[i64], end: Option<i64>) -> Tokens {
        let given = ids.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let learned = (0..ids.len()).map(|at| at >= given).collect();
        let tokens = Tokens { cut: ids.len() > self.longest, ids, learned };
        self.ended(tokens, end)
    }

    /// The answers of a chat.
    fn answered(&self, bare: &tokenizers::Tokenizer, chat: &Answers) -> Result<Tokens> {
        if chat.written.is_empty() {
            let message = "there is no message of the assistant in it: there is nothing to learn";
            return Err(Error::Input(message.into()));
        }
        let mut written = chat.written.iter().peekable();
        let (ids, learned): (Vec<i64>, _) = self
            .places(bare, &chat.text)?
            .into_iter()
            .map(|(id, place)| {
                while written.next_if(|answer| answer.end <= place.start).is_some() {}
                let learned = |answer: &&Range<usize>| place.start < answer.end && place.end > answer.start;
                (id, written.peek().is_some_and(learned))
            })
            .unzip();
        let tokens = Tokens { cut: ids.len() > self.longest, ids, learned };
        Ok(self.ended(tokens, None))
    }

    /// Cut to the longest there may be, with the end behind it where there is room and none.
    fn ended(&self, tokens: Tokens, end: Option<i64>) -> Tokens {
        let Tokens { mut ids, mut learned, cut } = tokens;
        ids.truncate(self.longest);
        learned.truncate(self.longest);
        if ids.len() < self.longest {
            ids.extend(end.filter(|id| ids.last() != Some(id)));
            learned.resize(ids.len(), true);
        }
        Tokens { ids, learned, cut }
    }

    /// Adds a row; nothing predicts its first token.
    fn add(&self, all: &mut Sequences, example: usize, tokens: Tokens) -> Result<()> {
        let Tokens { ids, learned, cut } = tokens;
        if cut {
            all.truncated = all.truncated.saturating_add(1);
        }
        if learned.iter().skip(1).any(|learned| *learned) {
            self.check(&ids)?;
            all.push(vec![Document { example, tokens: ids.len(), cut }], ids, learned);
            return Ok(());
        }
        if cut && learned.first() == Some(&false) {
            all.dropped = all.dropped.saturating_add(1);
            return Ok(());
        }
        let number = example.saturating_add(1);
        Err(Error::Input(match ids.len() {
            0 | 1 => format!("text {number} is one token at most: there is nothing to predict"),
            _ => format!("text {number} is its prompt alone: there is nothing to learn"),
        }))
    }
}

/// A row on its way.
struct Tokens {
    ids: Vec<i64>,
    learned: Vec<bool>,
    cut: bool,
}

fn no_template(example: usize) -> Error {
    let number = example.saturating_add(1);
    let message = "the model has no chat template; give it one as chat_template.jinja, or as `chat_template` in \
                   tokenizer_config.json (its instruction-tuned sister has one), or write the chats out as `text`";
    Error::Input(format!("text {number} is a chat, and {message}"))
}
