//! A file as UTF-8 text, or what else it seems to be and how it is converted.

use crate::error::{Error, Result};
use std::path::Path;

/// A format by its first bytes: its name, and the command that makes text of it (`FILE` is the file).
type Format = (&'static [u8], &'static str, &'static str);

const PANDAS: &str = "python -c \"import pandas; pandas.read_parquet('FILE').to_json('FILE.jsonl', orient='records', lines=True)\"";
const ARROW: &str = "python -c \"import datasets; datasets.Dataset.from_file('FILE').to_json('FILE.jsonl')\"";
const FORMATS: &[Format] = &[
    (b"\x1f\x8b", "compressed with gzip", "gunzip -k 'FILE'"),
    (b"BZh91AY&SY", "compressed with bzip2", "bunzip2 -k 'FILE'"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unxz -k 'FILE'"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd 'FILE'"),
    (b"PK\x03\x04", "a zip archive (a spreadsheet is one, too)", "unzip 'FILE'"),
    (b"PAR1", "a Parquet table", PANDAS),
    (b"ARROW1", "an Arrow table", ARROW),
    (b"\xff\xff\xff\xff", "an Arrow stream", ARROW),
    (b"%PDF-", "a PDF", "pdftotext 'FILE'"),
];

/// Byte order marks, longest first, and what `iconv` calls the encoding.
const MARKS: &[(&[u8], &str)] = &[
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
];

/// The text of a file, without its byte order mark.
pub(super) fn read(path: &Path) -> Result<String> {
    if path.is_dir() {
        return Err(Error::format(path, "is a directory, expected a file of texts"));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    if let Some((_, name, command)) = FORMATS.iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return Err(other(path, name, command));
    }
    if let Some((_, name)) = MARKS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Err(encoded(path, "line 1", &format!("{name}, by its byte order mark"), name));
    }
    if let Some(name) = wide(&bytes) {
        return Err(encoded(path, "line 1", &format!("{name}, as every other byte is 0"), name));
    }
    let text = String::from_utf8(bytes).map_err(|e| not_utf8(path, e.as_bytes(), e.utf8_error()))?;
    if let Some(at) = text.find('\0') {
        let line = line_of(text.as_bytes(), at);
        return Err(Error::format(path, format!("line {line}: a NUL (byte {at} of the file) is no text")));
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The number of the line that byte `at` is in.
pub(super) fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes.iter().take(at).filter(|b| **b == b'\n').count().saturating_add(1)
}

fn other(path: &Path, what: &str, command: &str) -> Error {
    let command = command.replace("FILE", &path.display().to_string());
    Error::format(path, format!("is {what}, expected JSON, CSV or one text a line; to convert it: {command}"))
}

fn encoded(path: &Path, place: &str, what: &str, from: &str) -> Error {
    let file = path.display();
    let command = format!("iconv -f {from} -t UTF-8 '{file}' > '{file}.utf8'");
    Error::format(path, format!("{place}: is not UTF-8 but {what}; to convert it: {command}"))
}

/// UTF-16 without a mark: of text in most languages every other byte is 0, and ASCII in UTF-16 is valid UTF-8.
fn wide(bytes: &[u8]) -> Option<&'static str> {
    let share = |first: usize| {
        let picked = bytes.iter().take(4096).skip(first).step_by(2);
        let zeros = picked.clone().filter(|b| **b == 0).count();
        zeros as f64 / picked.count().max(1) as f64
    };
    match (share(0), share(1)) {
        (even, odd) if odd > 0.4 && even < 0.1 => Some("UTF-16LE"),
        (even, odd) if even > 0.4 && odd < 0.1 => Some("UTF-16BE"),
        _ => None,
    }
}

fn not_utf8(path: &Path, bytes: &[u8], error: std::str::Utf8Error) -> Error {
    let at = error.valid_up_to();
    let place = format!("line {} (byte {at} of the file)", line_of(bytes, at));
    if error.error_len().is_none() {
        return Error::format(path, format!("{place}: the file ends within a character; was it cut off?"));
    }
    // Latin-1 has control characters where Windows' encoding has quotes and dashes.
    let windows = bytes.iter().any(|b| (0x80..0xa0).contains(b));
    let (name, from) = if windows { ("Windows-1252", "WINDOWS-1252") } else { ("Latin-1", "ISO-8859-1") };
    encoded(path, &place, &format!("perhaps {name}"), from)
}
