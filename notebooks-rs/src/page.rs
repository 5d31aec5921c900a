//! Where a section writes: lines for readers, facts for programs.

use serde_json::{Map, Value};
use std::fmt::Display;
use std::io::{self, Write};

/// The output of one section.
#[derive(Debug)]
pub struct Page<W: Write> {
    out: W,
    json: bool,
    lines: Vec<String>,
    facts: Map<String, Value>,
}

impl<W: Write> Page<W> {
    /// Lines go to `out` at once; with `json` it gets one object at the end instead.
    pub fn new(out: W, json: bool) -> Self {
        Self { out, json, lines: Vec::new(), facts: Map::new() }
    }

    /// One line of the lesson's output.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        let text = text.to_string();
        if !self.json {
            writeln!(self.out, "{text}")?;
            self.out.flush()?;
        }
        self.lines.push(text);
        Ok(())
    }

    /// A named number or list, for `--json` and for tests.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Our own words after the lesson's.
    pub fn what_to_see(&mut self, lines: &[String]) -> io::Result<()> {
        if !self.json {
            writeln!(self.out, "\nWhat to see here")?;
            for line in lines {
                writeln!(self.out, "- {line}")?;
            }
        }
        self.fact("what_to_see", lines.to_vec());
        Ok(())
    }

    /// The lesson's lines so far.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The facts so far.
    pub fn facts(&self) -> &Map<String, Value> {
        &self.facts
    }

    /// Writes the object, if that is what was asked for.
    pub fn finish(mut self) -> io::Result<()> {
        if self.json {
            self.facts.insert("lines".into(), self.lines.into());
            serde_json::to_writer(&mut self.out, &self.facts)?;
            writeln!(self.out)?;
        }
        self.out.flush()
    }
}
