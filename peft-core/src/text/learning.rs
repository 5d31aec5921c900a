//! What a causal model learns, as token ids.

use crate::error::{Error, Result};
use crate::text::encoded::Sequences;
use crate::text::{ChatTemplate, Example, TextEncoder};
use serde_json::Value;

impl TextEncoder {
    /// Token ids of texts that a causal model learns to write; `end` is put behind each that is not cut, so that it
    /// learns to stop.
    ///
    /// # Errors
    /// A text of one token, of which there is nothing to predict; a token id beyond the model's vocabulary.
    pub fn sequences<T: AsRef<str>>(&self, texts: &[T], end: Option<i64>) -> Result<Sequences> {
        let mut all = Sequences::new(self.pad);
        for (number, text) in (1..).zip(texts) {
            let (ids, cut) = self.text_ids(text.as_ref())?;
            self.learn(&mut all, number, ids, cut, 0, end)?;
        }
        Ok(all)
    }

    /// Token ids of what a causal model learns, as TRL has them: of texts and completions as in
    /// [`TextEncoder::sequences`], and of chats in the form that `template` gives them, which ends them itself. A prompt is
    /// not learned: what is learned begins where the ids of prompt and completion part from those of the prompt alone.
    /// What is cut off is not learned either; rows of which nothing is left are counted in [`Sequences::dropped`].
    ///
    /// # Errors
    /// As [`TextEncoder::sequences`]; a chat without a template, and what the template says to it; a cut that leaves
    /// nothing to learn of any row.
    pub fn examples(
        &self,
        examples: &[Example],
        end: Option<i64>,
        template: Option<&ChatTemplate>,
    ) -> Result<Sequences> {
        let mut all = Sequences::new(self.pad);
        for (number, example) in (1usize..).zip(examples) {
            match example {
                Example::Text(text) => {
                    let (ids, cut) = self.text_ids(text)?;
                    self.learn(&mut all, number, ids, cut, 0, end)?;
                }
                Example::Completion { prompt, completion } => {
                    let (ids, prompt) =
                        (self.ids(&[prompt.as_str(), completion].concat())?, self.ids(prompt)?);
                    self.learn_after(&mut all, number, ids, &prompt, end)?;
                }
                Example::Chat { messages, given, tools } => {
                    let template = template.ok_or_else(|| no_template(number))?;
                    let render = |messages: &[Value], prompt| {
                        let text = template.render(messages, tools.as_ref(), prompt);
                        self.plain(&text.map_err(|e| Error::Input(format!("text {number}: {e}")))?)
                    };
                    let prompt = messages.get(..*given).filter(|given| !given.is_empty());
                    let prompt = prompt.map(|given| render(given, true)).transpose()?.unwrap_or_default();
                    self.learn_after(&mut all, number, render(messages, false)?, &prompt, None)?;
                }
            }
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

    /// Adds a row that begins as `prompt` does, cut as TRL does: whatever is beyond the length.
    fn learn_after(
        &self,
        all: &mut Sequences,
        number: usize,
        mut ids: Vec<i64>,
        prompt: &[i64],
        end: Option<i64>,
    ) -> Result<()> {
        let given = ids.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let cut = ids.len() > self.longest;
        ids.truncate(self.longest);
        self.learn(all, number, ids, cut, given, end)
    }

    /// Adds a row of which the first `given` ids are not learned; nothing predicts the first one.
    fn learn(
        &self,
        all: &mut Sequences,
        number: usize,
        mut ids: Vec<i64>,
        cut: bool,
        given: usize,
        end: Option<i64>,
    ) -> Result<()> {
        if ids.len() < self.longest {
            ids.extend(end.filter(|id| ids.last() != Some(id)));
        }
        if cut {
            all.truncated = all.truncated.saturating_add(1);
        }
        if ids.len() > given.max(1) {
            self.check(&ids)?;
            all.ids.push(ids);
            all.given.push(given);
            return Ok(());
        }
        if cut && given > 0 {
            all.dropped = all.dropped.saturating_add(1);
            return Ok(());
        }
        Err(Error::Input(match given {
            0 | 1 => format!("text {number} is one token at most: there is nothing to predict"),
            _ => format!("text {number} is its prompt alone: there is nothing to learn"),
        }))
    }
}

fn no_template(number: usize) -> Error {
    let message = "the model has no chat template; give it one as chat_template.jinja, or as `chat_template` in \
                   tokenizer_config.json (its instruction-tuned sister has one), or write the chats out as `text`";
    Error::Input(format!("text {number} is a chat, and {message}"))
}
