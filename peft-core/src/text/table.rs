//! The rows of a table, CSV or TSV: the first line names the fields.
//!
//! As RFC 4180 has it: a field that begins with a quote ends with one, holds separators and ends of lines as they are, and
//! quotes twice. Readers that forgive take the rest of a file for one field where a quote is not closed; here that is an
//! error with its line.

use serde_json::{Map, Number, Value};
use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

/// What stands between the fields of a file of this name; `None` where it is no table.
pub(super) fn separator(path: &Path) -> Option<char> {
    let named = |suffix: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(suffix));
    [("csv", ','), ("tsv", '\t')].into_iter().find_map(|(suffix, c)| named(suffix).then_some(c))
}

/// The place of a row, and its fields.
pub(super) type Row = (String, Map<String, Value>);

/// The rows. All are strings, but a `label` that is a number.
pub(super) fn rows(text: &str, separator: char) -> Result<Vec<Row>, String> {
    let mut reader = Reader { rest: text.chars().peekable(), line: 1, separator };
    let Some((line, names)) = reader.row()? else { return Ok(Vec::new()) };
    if let [only] = names.as_slice()
        && only.contains([';', '\t', '|', ','])
    {
        let shown = shown(separator);
        return Err(format!(
            "line {line}: one field, `{}`: expected fields between {shown}",
            only.escape_debug()
        ));
    }
    let mut known = BTreeSet::new();
    for (number, name) in (1..).zip(&names) {
        // The index of a table that pandas wrote has no name.
        if name.is_empty() && number > 1 {
            return Err(format!("line {line}: field {number} has no name: the first line names the fields"));
        }
        if !known.insert(name) {
            return Err(format!("line {line}: `{name}` is there twice"));
        }
    }
    let mut rows = Vec::new();
    while let Some((line, cells)) = reader.row()? {
        if cells.len() != names.len() {
            let (found, expected, shown) = (cells.len(), names.len(), shown(separator));
            let names = names.join("`, `");
            return Err(format!(
                "line {line}: {found} fields between {shown}, expected {expected} as the first line has (`{names}`)"
            ));
        }
        let fields = names.iter().zip(cells).filter(|(name, _)| !name.is_empty());
        let fields = fields.map(|(name, cell)| (name.clone(), value(name, cell))).collect();
        rows.push((format!("line {line}"), fields));
    }
    Ok(rows)
}

/// A label is what it would be in JSON: 1 and 1.0 are one class, and 2.5 is a number.
fn value(name: &str, cell: String) -> Value {
    let number = (name == "label").then(|| serde_json::from_str::<Number>(cell.trim()).ok()).flatten();
    number.map_or(Value::String(cell), Value::Number)
}

fn shown(separator: char) -> &'static str {
    if separator == '\t' { "tabs" } else { "commas" }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
    separator: char,
}

impl Reader<'_> {
    /// The next row that is not blank, and the line it begins in.
    fn row(&mut self) -> Result<Option<(usize, Vec<String>)>, String> {
        while self.rest.peek().is_some() {
            let line = self.line;
            let mut cells = Vec::new();
            let quoted = self.rest.peek() == Some(&'"');
            while self.cell(&mut cells)? {}
            let blank = !quoted && matches!(cells.as_slice(), [only] if only.trim().is_empty());
            if !blank {
                return Ok(Some((line, cells)));
            }
        }
        Ok(None)
    }

    /// Reads a field; whether another one follows in its row.
    fn cell(&mut self, cells: &mut Vec<String>) -> Result<bool, String> {
        let quoted = self.rest.next_if_eq(&'"').is_some();
        let mut cell = String::new();
        if quoted {
            self.quoted(&mut cell)?;
        }
        while let Some(c) = self.rest.next() {
            let end = c == '\n' || (c == '\r' && self.rest.next_if_eq(&'\n').is_some());
            if end || c == self.separator {
                self.line = self.line.saturating_add(usize::from(end));
                cells.push(cell);
                return Ok(!end);
            }
            if c == '\r' {
                let message = "a carriage return that ends no line: expected lines that end in a line feed";
                return Err(format!("line {}: {message}", self.line));
            }
            if quoted {
                return Err(format!(
                    "line {}: `{}` after the quote that ends a field: a quote within a field that begins with one is \
                     written twice{}",
                    self.line,
                    c.escape_debug(),
                    self.hint()
                ));
            }
            cell.push(c);
        }
        cells.push(cell);
        Ok(false)
    }

    /// What is between quotes, behind the first of them.
    fn quoted(&mut self, cell: &mut String) -> Result<(), String> {
        let line = self.line;
        while let Some(c) = self.rest.next() {
            match c {
                '"' if self.rest.next_if_eq(&'"').is_none() => return Ok(()),
                '\n' => self.line = self.line.saturating_add(1),
                _ => {}
            }
            cell.push(c);
        }
        Err(format!("line {line}: a field begins with a quote that nothing ends{}", self.hint()))
    }

    /// Files of tabs come without any quoting, too.
    fn hint(&self) -> &'static str {
        match self.separator {
            '\t' => {
                "; of a file without quoting, make JSON: python -c \"import pandas; pandas.read_csv('FILE', sep='\\t', \
                 quoting=3).to_json('FILE.jsonl', orient='records', lines=True)\""
            }
            _ => "",
        }
    }
}
