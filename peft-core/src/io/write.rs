//! Single files, written whole or not at all.

use crate::error::{Error, Result};
use crate::io::saving::Saving;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

/// Writes a file whole or not at all, over one that is there: beside it first, flushed to disk, then renamed. `fill` gets
/// the handle. The file's mode is what the umask says; a link is replaced, and what it leads to stays.
///
/// # Errors
/// What `fill` says, and a place that cannot be written to; the old file stays then, and nothing is left beside it.
pub fn write_atomically(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let Some(name) = path.file_name() else {
        return Err(Error::file(path, ErrorKind::InvalidFilename.into()));
    };
    let mut saving = Saving::begin(path.parent().unwrap_or(Path::new("")), name)?;
    saving.put(name, fill)?;
    saving.commit()
}

/// A JSON file with an indent of two.
pub fn write_json(path: impl AsRef<Path>, value: &Value) -> Result<()> {
    let path = path.as_ref();
    write_atomically(path, |file| json(path, file, value))
}

/// The text of a JSON file, as Python's `json.dumps(.., indent=2)` has it.
pub(crate) fn json(path: &Path, file: &mut BufWriter<File>, value: &Value) -> Result<()> {
    let mut out = Serializer::with_formatter(file, Python(PrettyFormatter::new()));
    value
        .serialize(&mut out)
        .map_err(|e| if e.is_io() { Error::file(path, e.into()) } else { Error::format(path, e) })
}

/// An indent of two, and numbers as Python writes them: 6e-05 and 1e+16.
struct Python(PrettyFormatter<'static>);

impl Formatter for Python {
    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        let short = format!("{value:e}");
        match short.split_once('e').and_then(|(digits, e)| Some((digits, e.parse::<i32>().ok()?))) {
            Some((digits, e)) if !(-4..16).contains(&e) => {
                let sign = if e < 0 { '-' } else { '+' };
                write!(out, "{digits}e{sign}{:02}", e.unsigned_abs())
            }
            _ if value.fract() == 0.0 => write!(out, "{value:.1}"),
            _ => write!(out, "{value}"),
        }
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.json");
        for (value, text) in [
            (6e-5, "6e-05"),
            (0.0001, "0.0001"),
            (1.5e-7, "1.5e-07"),
            (8.0, "8.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-2.5e100, "-2.5e+100"),
            (0.1, "0.1"),
            (0.0, "0.0"),
            (-0.02, "-0.02"),
        ] {
            write_json(&path, &serde_json::json!([value])).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("[\n  {text}\n]"));
        }
    }
}
