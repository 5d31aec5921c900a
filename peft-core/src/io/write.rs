//! Single files, written whole or not at all.

use crate::error::{Error, Result};
use crate::io::python::Python;
use crate::io::saving::Saving;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};
use std::fs::File;
use std::io::{BufWriter, ErrorKind};
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
    let mut out = Serializer::with_formatter(file, Python(Some(PrettyFormatter::new())));
    value
        .serialize(&mut out)
        .map_err(|e| if e.is_io() { Error::file(path, e.into()) } else { Error::format(path, e) })
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
