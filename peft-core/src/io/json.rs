//! JSON files, as Python's `json` reads them.

use crate::error::{Error, Result};
use fancy_regex::{Captures, Regex};
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;

/// A JSON file in UTF-8, with or without a byte order mark. Of a key that is there twice the last one counts. Python's
/// `NaN`, `Infinity` and `-Infinity`, which JSON has not, become what transformers writes for them:
/// `{"__float__": "NaN"}`.
///
/// # Errors
/// A file that cannot be read, that is in another encoding, or that is not JSON: with the line and the column.
pub fn read_json(path: impl AsRef<Path>) -> Result<Value> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let text = utf8(&bytes).map_err(|message| Error::format(path, message))?;
    if text.trim().is_empty() {
        return Err(Error::format(path, "is empty: fetch or write it again"));
    }
    parse(text).map_err(|e| Error::format(path, format!("{e}{}", what_else(text))))
}

/// As [`read_json`], of a file that is one object: fields are looked for in it, and a list would have none of them.
pub(crate) fn read_object(path: &Path) -> Result<Value> {
    let json = read_json(path)?;
    let kind = match json {
        Value::Object(_) if !is_special(&json) => return Ok(json),
        Value::Array(_) => "a list",
        _ => "a single value",
    };
    Err(Error::format(path, format!("is {kind}, expected an object: {{\"field\": value, ..}}")))
}

/// How messages show a value: special numbers as Python writes them.
pub(crate) fn shown(value: &Value) -> String {
    special(value).map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a value is `NaN`, `Infinity` or `-Infinity`.
pub(crate) fn is_special(value: &Value) -> bool {
    special(value).is_some()
}

fn special(value: &Value) -> Option<&str> {
    value.get(FLOAT).and_then(Value::as_str)
}

/// The key under which transformers writes a special number.
const FLOAT: &str = "__float__";

fn parse(text: &str) -> serde_json::Result<Value> {
    let strict = serde_json::from_str(text);
    if strict.is_ok() || !(text.contains("NaN") || text.contains("Infinity")) {
        return strict;
    }
    // Numbers of the same length tell whether the rest is JSON, and at which column it is not.
    let numbers = with_specials(text, |special| match special {
        "NaN" => "1e0".to_owned(),
        "Infinity" => "1e000000".to_owned(),
        _ => "-1e000000".to_owned(),
    });
    serde_json::from_str::<Value>(&numbers)?;
    serde_json::from_str(&with_specials(text, |special| format!(r#"{{"{FLOAT}":"{special}"}}"#)))
}

/// A string, or a special number outside of all strings.
static TOKEN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?s)"(?:[^"\\]|\\.)*"|-?Infinity|NaN"#).ok());

/// The text with `instead` for its special numbers.
fn with_specials(text: &str, instead: impl Fn(&str) -> String) -> String {
    let token = |found: &Captures<'_>| match found.get(0).map_or("", |m| m.as_str()) {
        string if string.starts_with('"') => string.to_owned(),
        special => instead(special),
    };
    TOKEN.as_ref().map_or_else(|| text.to_owned(), |regex| regex.replace_all(text, token).into_owned())
}

/// The text of a file in UTF-8, without its byte order mark; or else what is wrong with it.
fn utf8(bytes: &[u8]) -> std::result::Result<&str, String> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let zeros = bytes.iter().take(64).filter(|b| **b == 0).count();
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") || zeros > 1 {
        return Err("is in UTF-16, or no text: save it as UTF-8".into());
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let (read, rest) = bytes.split_at_checked(e.valid_up_to()).unwrap_or((bytes, &[]));
        let line = read.iter().filter(|b| **b == b'\n').count().saturating_add(1);
        let byte = rest.first().copied().unwrap_or_default();
        format!("line {line}: the byte 0x{byte:02X} is not UTF-8 (Latin-1 perhaps): save it as UTF-8")
    })
}

/// What a file is instead, and what to do about it.
fn what_else(text: &str) -> &'static str {
    let text = text.trim_start();
    if text.starts_with("version https://git-lfs") {
        ": this is a pointer of Git LFS; fetch the file itself (git lfs pull)"
    } else if text.starts_with('<') {
        ": this is a web page; fetch the file itself"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(bytes: &[u8]) -> Result<Value> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read_json(file.path())
    }

    fn refused(bytes: &[u8], parts: &[&str]) {
        let text = read(bytes).unwrap_err().to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once() {
        assert_eq!(read(b"\xEF\xBB\xBF{\"a\": 1}").unwrap(), json!({ "a": 1 }));
        refused(b"\xEF\xBB\xBF\xEF\xBB\xBF{}", &["line 1 column 1"]);
    }

    #[test]
    fn special_numbers_are_read_as_transformers_writes_them() {
        let text = r#"{"a": Infinity, "b": [-Infinity, NaN], "c": "NaN \" Infinity", "Infinity": 1e-05}"#;
        let special = |name: &str| json!({ "__float__": name });
        let expected = json!({
            "a": special("Infinity"), "b": [special("-Infinity"), special("NaN")],
            "c": "NaN \" Infinity", "Infinity": 1e-5
        });
        let value = read(text.as_bytes()).unwrap();
        assert_eq!(value, expected);
        assert_eq!(read(value.to_string().as_bytes()).unwrap(), expected);
        assert_eq!((shown(&value["a"]), shown(&json!({ "a": 1 }))), ("Infinity".into(), r#"{"a":1}"#.into()));
    }

    /// The place is the file's own, whatever stands before it in the line.
    #[test]
    fn errors_have_the_line_and_the_column() {
        refused(b"{\n \"a\": 1,\n \"b\": oops\n}", &["line 3 column 7"]);
        refused(b"{\n \"a\": NaN, \"b\": -Infinity, \"c\": Infinity, \"d\": oops}", &["line 2 column 48"]);
        refused(b"{\"a\": NaN, }", &["trailing comma", "line 1 column 12"]);
        refused(b"{\"a\": NaNNaN}", &["line 1"]);
        refused(b"{\"a\": 1NaN}", &["line 1"]);
        refused(b"{\"a\": 1} // mine", &["line 1 column 10"]);
        refused(b"[1, 2", &["line 1 column 5"]);
    }

    #[test]
    fn other_files_are_named() {
        refused(b" \n", &["is empty"]);
        let wide: Vec<u8> = "{\"a\": 1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        refused(&wide, &["UTF-16", "UTF-8"]);
        refused(&[b"\xFF\xFE".as_slice(), &wide].concat(), &["UTF-16"]);
        refused(b"{\n\"a\": \"caf\xE9\"}", &["line 2", "0xE9", "Latin-1", "UTF-8"]);
        refused(b"<!DOCTYPE html>", &["web page"]);
        refused(b"version https://git-lfs.github.com/spec/v1\n", &["Git LFS"]);
    }

    #[test]
    fn a_file_of_fields_is_an_object() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, what) in [("[{}]", "a list"), ("3", "a single value"), ("NaN", "a single value")] {
            std::fs::write(file.path(), text).unwrap();
            let error = read_object(file.path()).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("expected an object"), "{error}");
        }
        std::fs::write(file.path(), "{}").unwrap();
        assert_eq!(read_object(file.path()).unwrap(), json!({}));
    }

    /// What is read and written again is the same number, to the last bit, and of the same kind.
    #[test]
    fn numbers_go_through_unchanged() {
        for text in [
            "1e-05",
            "0.1",
            "5e-324",
            "2.2250738585072014e-308",
            "123456789.123456789",
            "1.7976931348623157e308",
        ] {
            let value = read(text.as_bytes()).unwrap();
            assert_eq!(value.as_f64().map(f64::to_bits), text.parse().ok().map(f64::to_bits), "{text}");
        }
        assert_eq!(
            read(b"[1, 1.0, -0.0, 18446744073709551615]").unwrap().to_string(),
            "[1,1.0,-0.0,18446744073709551615]"
        );
        assert_eq!(read(br#"{"a": 1, "b": 2, "a": 3}"#).unwrap(), json!({ "a": 3, "b": 2 }));
    }
}
