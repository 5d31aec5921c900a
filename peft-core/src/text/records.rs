//! The rows of a file with fields: a table, or JSON with one object a line, objects over several lines, or one array of them.

use crate::error::{Error, Result};
use crate::text::table;
use crate::warning::Warning;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// One row, with where it stands for messages.
pub(super) struct Record {
    path: PathBuf,
    place: String,
    fields: Map<String, Value>,
}

impl Record {
    /// An error about this row.
    pub fn wrong(&self, what: impl fmt::Display) -> Error {
        Error::format(&self.path, format!("{}: {what}", self.place))
    }

    /// Whether there is a field of that name that is not null.
    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// A field that is not null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    /// A field that is a text.
    pub fn text(&self, field: &str) -> Result<&str> {
        match self.fields.get(field) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => {
                Err(self.wrong(format!("`{field}` is {}, expected a string", brief(&other.to_string()))))
            }
            None => Err(self.wrong(format!("no `{field}` ({})", self.names()))),
        }
    }

    /// What there is instead: "the fields are `a`, `b`".
    pub fn names(&self) -> String {
        let name = |(name, value): (&String, &Value)| {
            let kind = match value {
                Value::Null => " (null)",
                Value::Array(_) => " (a list)",
                _ => "",
            };
            format!("`{name}`{kind}")
        };
        let names: Vec<String> = self.fields.iter().map(name).collect();
        if names.is_empty() {
            "it has no fields".into()
        } else {
            format!("the fields are {}", names.join(", "))
        }
    }
}

/// Text that is long, cut for a message.
pub(super) fn brief(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Names that say where a row is from, and nothing that could be learned.
const ABOUT: &[&str] =
    &["id", "idx", "index", "_id", "uuid", "uid", "guid", "source", "url", "meta", "metadata"];

/// One warning for each field that some row has and nothing reads.
pub(super) fn unread(path: &Path, records: &[Record], read: &[&str], as_what: &str) -> Vec<Warning> {
    let known = |name: &str| read.contains(&name) || ABOUT.contains(&name);
    let fields = records.iter().flat_map(|r| r.fields.iter().filter(|(_, v)| !v.is_null()));
    let names: BTreeSet<&String> = fields.map(|(name, _)| name).filter(|name| !known(name)).collect();
    let message = format!("is not read: the rows are taken as {as_what}");
    names.into_iter().map(|name| Warning::new(path.display(), name, &message)).collect()
}

/// Whether the rows of a file of this name have fields.
pub(super) fn has_fields(path: &Path) -> bool {
    let named = |suffix: &&str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(suffix));
    table::separator(path).is_some() || ["jsonl", "json", "ndjson"].iter().any(named)
}

/// The rows of a file's text: of a table, where it is called so, and of JSON otherwise. A string of JSON stands for an object
/// with that `text`.
pub(super) fn records(path: &Path, text: &str, example: &str) -> Result<Vec<Record>> {
    if let Some(separator) = table::separator(path) {
        let named = |what: String| Error::format(path, what.replace("FILE", &path.display().to_string()));
        let rows = table::rows(text, separator).map_err(named)?;
        if rows.is_empty() {
            return Err(Error::format(
                path,
                "has no rows: expected a line that names the fields, and rows below it",
            ));
        }
        let record = |(place, fields)| Record { path: path.to_owned(), place, fields };
        return Ok(rows.into_iter().map(record).collect());
    }
    let rows = split(text).map_err(|what| Error::format(path, what))?;
    if rows.is_empty() {
        return Err(Error::format(path, format!("has no rows: expected lines like {example}")));
    }
    let record = |(place, json): (String, &str)| match parse::<Fields>(json) {
        Ok(Fields(fields)) => Ok(Record { path: path.to_owned(), place, fields }),
        Err((what, column)) => Err(Error::format(path, format!("{place}: {what} (column {column})"))),
    };
    rows.into_iter().map(record).collect()
}

type Placed<'a> = (String, &'a str);

/// The JSON of each row, and its place.
fn split(text: &str) -> std::result::Result<Vec<Placed<'_>>, String> {
    let whole = |json: &str| serde_json::from_str::<IgnoredAny>(json).is_ok();
    let object = |json: &str| whole(json) && json.trim_start().starts_with('{');
    let lines = || text.split('\n').map(|line| line.trim_start_matches('\u{feff}'));
    let filled: Vec<(usize, &str)> = (1..).zip(lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    let by_line = || filled.iter().map(|(number, line)| (format!("line {number}"), *line)).collect();
    match filled.as_slice() {
        [] => Ok(Vec::new()),
        // One value a line, unless the first does not end where its line does.
        [(_, first), _, ..] if whole(first) => Ok(by_line()),
        _ if text.trim_start().starts_with('[') => elements(text),
        [(_, only)] if !only.contains('{') => Ok(by_line()),
        // Where other lines are whole objects, it is the first one that is wrong.
        [_, others @ ..] if others.iter().any(|(_, line)| object(line)) => Ok(by_line()),
        _ => values(text),
    }
}

/// The elements of the one array that the text is.
fn elements(text: &str) -> std::result::Result<Vec<Placed<'_>>, String> {
    let all: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut line = lines_in(text);
    let rows = (1..).zip(all.iter().map(|raw| raw.get()));
    Ok(rows.map(|(row, json): (usize, &str)| (format!("row {row} (line {})", line(json)), json)).collect())
}

/// Values that stand one after the other.
fn values(text: &str) -> std::result::Result<Vec<Placed<'_>>, String> {
    let mut line = lines_in(text);
    let mut rows = Vec::new();
    for raw in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let json = raw.map_err(|e| e.to_string())?.get();
        rows.push((format!("line {}", line(json)), json));
    }
    Ok(rows)
}

/// The line that a part of `text` begins in, for parts in their order.
fn lines_in(text: &str) -> impl FnMut(&str) -> usize {
    let (mut rest, mut line) = (text.as_bytes(), 1usize);
    move |part| {
        let ahead = part.as_ptr().addr().saturating_sub(rest.as_ptr().addr());
        if let Some((before, after)) = rest.split_at_checked(ahead) {
            line = line.saturating_add(before.iter().filter(|b| **b == b'\n').count());
            rest = after;
        }
        line
    }
}

/// A value, or what is wrong in which column.
fn parse<'de, T: Deserialize<'de>>(json: &'de str) -> std::result::Result<T, (String, usize)> {
    serde_json::from_str(json).map_err(|e| {
        // serde counts lines within this one.
        let text = e.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        let half = what.contains("hex escape");
        let half =
            if half { r": \uD800 to \uDFFF are halves of a character, and one alone is none" } else { "" };
        (format!("{what}{half}"), e.column())
    })
}

/// The fields of an object, none of them twice. Never an array: serde would take its elements for a struct's fields.
struct Fields(Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a string a row")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Fields, E> {
                Ok(Fields(Map::from_iter([("text".to_owned(), Value::from(text))])))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!("`{name}` is there twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Fields(fields))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> std::result::Result<Fields, A::Error> {
                let message =
                    "an array as a row, expected an object or a string (one array of rows is the whole file)";
                Err(A::Error::custom(message))
            }
        }
        from.deserialize_any(Reader)
    }
}
