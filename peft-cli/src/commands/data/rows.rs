//! A row as it is shown.

use anyhow::{Context, Result};
use clap::builder::styling::{AnsiColor, Style};
use peft_core::text::{Document, Sequences, TextEncoder};
use serde::Serialize;
use serde_json::Value;
use std::io::{IsTerminal, stdout};

/// How what is learned is told from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Between brackets.
    Plain,
    /// In green.
    Colour,
}

impl Ink {
    /// Colour on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if stdout().is_terminal() && !unwanted { Self::Colour } else { Self::Plain }
    }

    fn mark(self, text: &str) -> String {
        let green = Style::new().fg_color(Some(AnsiColor::Green.into()));
        match self {
            Self::Plain => format!("⟦{text}⟧"),
            Self::Colour => format!("{green}{text}{green:#}"),
        }
    }
}

/// A row.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// From 1.
    row: usize,
    tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    learned: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<Value>,
    texts: Vec<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<i64>>,
    /// Which of the ids count in the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<Vec<bool>>,
}

/// One of the texts that a row is made of.
#[derive(Debug, Serialize)]
struct Text {
    /// Which of the file, from 1.
    text: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<bool>,
    /// Whether an end of the text is learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<bool>,
    parts: Vec<Part>,
}

/// Tokens that are learned, or not, as text.
#[derive(Debug, Serialize)]
struct Part {
    text: String,
    learned: bool,
}

impl Shown {
    /// A row of what a causal model learns; `ends` are the ids that end a text.
    pub fn sequence(
        encoder: &TextEncoder,
        data: &Sequences,
        row: usize,
        ends: &[i64],
        with_ids: bool,
    ) -> Result<Self> {
        let missing = "a row that is not there";
        let ids = data.ids.get(row).context(missing)?;
        let mask = data.counted(row)?;
        let (mut texts, mut from) = (Vec::new(), 0);
        for Document { example, tokens, cut } in data.documents.get(row).context(missing)? {
            let part = from..from + tokens;
            let (ids, mask) = (ids.get(part.clone()).context(missing)?, mask.get(part).context(missing)?);
            let ended = ids.iter().zip(mask).any(|(id, learned)| *learned && ends.contains(id));
            let parts = parts(encoder, ids, mask)?;
            texts.push(Text { text: example + 1, cut: Some(*cut), ended: Some(ended), parts });
            from += tokens;
        }
        Ok(Self {
            row: row + 1,
            tokens: ids.len(),
            learned: Some(mask.iter().filter(|learned| **learned).count()),
            label: None,
            texts,
            ids: with_ids.then(|| ids.clone()),
            mask: with_ids.then_some(mask),
        })
    }

    /// A row of what a classifier learns.
    pub fn labelled(
        encoder: &TextEncoder,
        row: usize,
        ids: &[i64],
        label: Option<Value>,
        with_ids: bool,
    ) -> Result<Self> {
        let parts = vec![Part { text: encoder.written(ids)?, learned: false }];
        let texts = vec![Text { text: row + 1, cut: None, ended: None, parts }];
        let (tokens, ids) = (ids.len(), with_ids.then(|| ids.to_vec()));
        Ok(Self { row: row + 1, tokens, learned: None, label, texts, ids, mask: None })
    }

    /// As text.
    pub fn text(&self, ink: Ink) -> String {
        let mut out = format!("row {}: {} tokens", self.row, self.tokens);
        let mut say = |text: &str| out.push_str(text);
        if let Some(learned) = self.learned {
            say(&format!(", {learned} learned"));
        }
        match &self.label {
            Some(Value::String(label)) => say(&format!(", label {label}")),
            Some(label) => say(&format!(", label {label}")),
            None => {}
        }
        let packed = self.texts.len() > 1;
        if packed {
            say(&format!(", {} texts", self.texts.len()));
        }
        for text in &self.texts {
            let cut = text.cut.is_some_and(|cut| cut).then_some("cut");
            let endless = text.ended.is_some_and(|ended| !ended).then_some("without an end");
            let said: Vec<&str> = cut.into_iter().chain(endless).collect();
            if packed || text.text != self.row {
                say(&format!("\n– text {}", text.text));
                say(&said.iter().map(|what| format!(", {what}")).collect::<String>());
                say(":");
            } else {
                say(&said.iter().map(|what| format!(", {what}")).collect::<String>());
            }
            say("\n");
            for part in &text.parts {
                let text = visible(&part.text);
                say(&if part.learned { ink.mark(&text) } else { text });
            }
        }
        if let Some(ids) = &self.ids {
            say("\n");
            say(&numbers(ids, self.mask.as_deref().unwrap_or_default(), ink));
        }
        say("\n");
        out
    }
}

/// Tokens as text, in parts that are learned or not. A part is what the text has more with it, so that spaces are where they
/// belong; where it ends within a character, it is what the tokens are alone.
fn parts(encoder: &TextEncoder, ids: &[i64], mask: &[bool]) -> Result<Vec<Part>> {
    let (mut parts, mut before, mut end) = (Vec::new(), String::new(), 0);
    for run in mask.chunk_by(|a, b| a == b) {
        let start = end;
        end += run.len();
        let through = encoder.written(ids.get(..end).unwrap_or_default())?;
        let text = match through.strip_prefix(&before) {
            Some(text) => text.to_owned(),
            None => encoder.written(ids.get(start..end).unwrap_or_default())?,
        };
        parts.push(Part { text, learned: run.first() == Some(&true) });
        before = through;
    }
    Ok(parts)
}

/// Token ids, with what is learned marked.
fn numbers(ids: &[i64], mask: &[bool], ink: Ink) -> String {
    let learned = |at: usize| mask.get(at) == Some(&true);
    let places: Vec<(usize, i64)> = ids.iter().copied().enumerate().collect();
    let runs = places.chunk_by(|a, b| learned(a.0) == learned(b.0)).map(|run| {
        let text = run.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>().join(" ");
        if run.first().is_some_and(|(at, _)| learned(*at)) { ink.mark(&text) } else { text }
    });
    format!("ids: {}", runs.collect::<Vec<_>>().join(" "))
}

/// A text whose control characters are seen, and not done; ends of lines and tabs are what they are.
fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_is_seen() {
        let shown = numbers(&[1, 2, 3, 4], &[false, true, true, false], Ink::Plain);
        assert_eq!(shown, "ids: 1 ⟦2 3⟧ 4");
        assert_eq!(numbers(&[1, 2], &[], Ink::Plain), "ids: 1 2");
        let green = numbers(&[1, 2], &[false, true], Ink::Colour);
        assert_eq!(green, "ids: 1 \u{1b}[32m2\u{1b}[0m");
        assert_eq!(visible("a\u{1b}[2J\tb\n\u{7}"), "a\\u{1b}[2J\tb\n\\u{7}");
    }
}
