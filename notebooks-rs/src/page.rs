//! Where a section writes: lines for readers, facts for programs, figures for both.

use anyhow::{Context, Result, ensure};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table as Grid, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use peft_plot::Figure;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::{self, Debug, Display};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A claim or a piece of code of the lesson that is mistaken, and what is right. Both sides are computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mistake {
    /// What it is about: "DoRA's magnitude starts at one".
    pub about: String,
    /// What comes of it as the lesson has it.
    pub as_written: String,
    /// What is right.
    pub right: String,
}

impl Mistake {
    pub fn new(about: impl Into<String>, as_written: impl Into<String>, right: impl Into<String>) -> Self {
        Self { about: about.into(), as_written: as_written.into(), right: right.into() }
    }
}

/// A table of ours.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A figure and its file name, without an ending.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    pub name: String,
    pub figure: Figure,
}

/// The output of one section.
pub struct Page {
    out: Box<dyn Write + Send + Sync>,
    json: bool,
    /// Nobody reads along: no bars either.
    silent: bool,
    plots: Option<PathBuf>,
    lines: Vec<String>,
    facts: Map<String, Value>,
    tables: Vec<Table>,
    mistakes: Vec<Mistake>,
    to_see: Vec<String>,
    pictures: Vec<Picture>,
}

impl Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("lines", &self.lines).field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Page {
    /// Lines go to `out` at once; with `json` it gets one object at the end instead. Figures go to the directory
    /// `plots`.
    pub fn new(out: impl Write + Send + Sync + 'static, json: bool, plots: Option<PathBuf>) -> Self {
        Self {
            out: Box::new(out),
            json,
            silent: false,
            plots,
            lines: Vec::new(),
            facts: Map::new(),
            tables: Vec::new(),
            mistakes: Vec::new(),
            to_see: Vec::new(),
            pictures: Vec::new(),
        }
    }

    /// A page that nobody reads along, to be looked at afterwards.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::new(io::sink(), false, None) }
    }

    fn print(&mut self, text: impl Display) -> io::Result<()> {
        if !self.json {
            writeln!(self.out, "{text}")?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// One line of the lesson's output.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        let text = text.to_string();
        self.print(&text)?;
        self.lines.push(text);
        Ok(())
    }

    /// A named number or list, for `--json` and for tests.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// A table of our own. Columns after the first are aligned to the right where they hold numbers.
    pub fn table<C: Into<String>>(
        &mut self,
        title: &str,
        columns: impl IntoIterator<Item = C>,
        rows: Vec<Vec<String>>,
    ) -> io::Result<()> {
        let table =
            Table { title: title.into(), columns: columns.into_iter().map(Into::into).collect(), rows };
        self.print(format!("\n{title}\n{}", grid(&table)))?;
        self.tables.push(table);
        Ok(())
    }

    /// Where the lesson is mistaken: as it is written, and the right way.
    pub fn mistakes(&mut self, mistakes: &[Mistake]) -> io::Result<()> {
        self.print("\nWhere the lesson is mistaken")?;
        for m in mistakes {
            self.print(format!(
                "- {}\n    as written: {}\n    right:      {}",
                m.about, m.as_written, m.right
            ))?;
        }
        self.mistakes.extend_from_slice(mistakes);
        Ok(())
    }

    /// Our own words after the lesson's.
    pub fn what_to_see(&mut self, lines: &[String]) -> io::Result<()> {
        self.print("\nWhat to see here")?;
        for line in lines {
            self.print(format!("- {line}"))?;
        }
        self.to_see.extend_from_slice(lines);
        Ok(())
    }

    /// A figure, written as `name`.svg and `name`.png where pictures are asked for.
    pub fn figure(&mut self, name: &str, figure: Figure) -> Result<()> {
        self.pictures.push(Picture { name: name.into(), figure });
        Ok(())
    }

    /// A bar on standard error, if that is a terminal, for what takes seconds.
    pub fn progress(&self, title: &str, steps: u64) -> ProgressBar {
        let target = if self.silent { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(steps), target).with_message(title.to_owned());
        match ProgressStyle::with_template("{msg:28} {bar:30} {pos}/{len}, {eta} left") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    /// The lesson's lines so far.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The facts so far.
    pub fn facts(&self) -> &Map<String, Value> {
        &self.facts
    }

    /// Our tables so far.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The mistakes so far.
    pub fn mistaken(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// Our own words so far.
    pub fn to_see(&self) -> &[String] {
        &self.to_see
    }

    /// The figures so far.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// Writes the pictures, and the object, if that is what was asked for.
    pub fn finish(mut self) -> Result<()> {
        let files = match self.plots.take() {
            Some(dir) => self.save(&dir)?,
            None => Vec::new(),
        };
        if self.json {
            let parts = [
                ("lines", serde_json::to_value(&self.lines)?),
                ("tables", serde_json::to_value(&self.tables)?),
                ("mistakes", serde_json::to_value(&self.mistakes)?),
                ("what_to_see", serde_json::to_value(&self.to_see)?),
                ("figures", serde_json::to_value(&self.pictures)?),
                ("files", serde_json::to_value(&files)?),
            ];
            let mut object = std::mem::take(&mut self.facts);
            for (name, part) in parts {
                let fact = object.insert(name.into(), part);
                ensure!(fact.is_none(), "a fact has the name `{name}`, which is that of a part of the page");
            }
            writeln!(self.out, "{}", serde_json::to_string(&object)?)?;
        } else if !files.is_empty() {
            writeln!(self.out, "\nPictures")?;
            for file in &files {
                writeln!(self.out, "- {}", file.display())?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn save(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for p in &self.pictures {
            files.extend(p.figure.save(dir, &p.name).with_context(|| format!("figure `{}`", p.name))?);
        }
        Ok(files)
    }
}

/// Columns of text that a table has at most.
const WIDTH: u16 = 120;

/// The table as text.
pub fn grid(table: &Table) -> Grid {
    let mut grid = Grid::new();
    grid.load_style(UTF8_FULL_CONDENSED);
    grid.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH).set_header(&table.columns);
    for row in &table.rows {
        grid.add_row(row.iter().map(|text| {
            let number = text.starts_with(|c: char| c.is_ascii_digit() || "-+±~<".contains(c));
            Cell::new(text).set_alignment(if number { CellAlignment::Right } else { CellAlignment::Left })
        }));
    }
    grid
}
