//! Files that are no UTF-8, or no text.

use crate::{case, given};
use anyhow::{Result, ensure};
use peft_core::text::{Corpus, Dataset, texts};
use tests::refused;

#[test]
fn a_byte_order_mark_is_no_text() -> Result<()> {
    ensure!(texts(case("bom.txt"))? == ["the cat sat", "the dog ran"], "{:?}", texts(case("bom.txt"))?);
    ensure!(texts(case("bom.jsonl"))? == ["the cat sat", "the dog ran"], "{:?}", texts(case("bom.jsonl"))?);
    let data = Dataset::read(case("bom.jsonl"))?;
    ensure!(data.labels() == ["bad", "good"] && data.rows[0].text == "the cat sat", "{data:?}");
    // Of files that were joined, every one may have had one.
    let joined = given("a.jsonl", "\u{feff}{\"text\": \"a\"}\n\u{feff}{\"text\": \"b\"}\n")?;
    ensure!(texts(joined.as_ref())? == ["a", "b"], "{:?}", texts(joined.as_ref()));
    let joined = given("a.txt", "\u{feff}a\n\u{feff}b\n")?;
    ensure!(texts(joined.as_ref())? == ["a", "b"], "{:?}", texts(joined.as_ref()));
    Ok(())
}

/// Whoever reads, and whatever the form: the line, the encoding, the command.
#[test]
fn other_encodings_are_named() -> Result<()> {
    let wide = |text: &str, little: bool| -> Vec<u8> {
        text.encode_utf16().flat_map(|c| if little { c.to_le_bytes() } else { c.to_be_bytes() }).collect()
    };
    let json = "{\"text\": \"the cat\", \"label\": \"a\"}\n";
    let second = [json.as_bytes(), b"{\"text\": \"caf\xe9\", \"label\": \"a\"}\n"].concat();
    let quotes =
        [json.as_bytes(), json.as_bytes(), b"{\"text\": \"\x93cat\x94\", \"label\": \"a\"}\n"].concat();
    let cut = [json.as_bytes(), b"{\"text\": \"\xe2\x82"].concat();
    for (bytes, parts) in [
        (
            std::fs::read(case("latin1.txt"))?,
            &["line 1", "byte 11", "Latin-1", "iconv -f ISO-8859-1 -t UTF-8"][..],
        ),
        (
            std::fs::read(case("utf16.txt"))?,
            &["line 1", "UTF-16", "byte order mark", "iconv -f UTF-16 -t UTF-8"],
        ),
        (wide(json, true), &["UTF-16LE", "iconv -f UTF-16LE"]),
        (wide(json, false), &["UTF-16BE", "iconv -f UTF-16BE"]),
        (b"\xff\xfe\0\0t\0\0\0".to_vec(), &["UTF-32", "iconv -f UTF-32"]),
        (second, &["line 2", "Latin-1"]),
        (quotes, &["line 3", "Windows-1252", "iconv -f WINDOWS-1252"]),
        (cut, &["line 2", "ends within a character", "cut off"]),
        (b"the cat\nsat \0 on\n".to_vec(), &["line 2", "NUL"]),
    ] {
        for name in ["a.txt", "a.jsonl"] {
            let file = given(name, &bytes)?;
            let parts = [parts, &[name]].concat();
            refused("a corpus", Corpus::read(file.as_ref()), &parts)?;
            refused("labels", Dataset::read(file.as_ref()), &parts)?;
            refused("texts", texts(file.as_ref()), &parts)?;
        }
    }
    Ok(())
}

#[test]
fn files_that_are_no_text_have_their_command() -> Result<()> {
    for (name, bytes, parts) in [
        ("a.jsonl.gz", &b"\x1f\x8b\x08\0\0\0\0\0"[..], &["gzip", "gunzip -k '"][..]),
        ("a.jsonl", b"\x1f\x8b\x08\0\0\0\0\0", &["gzip"]),
        ("a.zst", b"\x28\xb5\x2f\xfd\x04", &["zstd", "unzstd"]),
        ("a.parquet", b"PAR1\x15\x04", &["Parquet", "read_parquet", "to_json"]),
        ("a.arrow", b"ARROW1\0\0", &["Arrow", "to_json"]),
        ("a.xlsx", b"PK\x03\x04\x14", &["zip", "spreadsheet"]),
    ] {
        let file = given(name, bytes)?;
        refused(name, Corpus::read(file.as_ref()), &[parts, &[name]].concat())?;
        refused(name, Dataset::read(file.as_ref()), &[parts, &[name]].concat())?;
    }
    let dir = tempfile::tempdir()?;
    refused("a directory", Corpus::read(dir.path()), &["is a directory"])?;
    refused("nothing", Corpus::read("nowhere.txt"), &["nowhere.txt", "No such file"])?;
    Ok(())
}

/// Only a line feed ends a line.
#[test]
fn what_ends_a_line() -> Result<()> {
    let inside = ["a\u{2028}b", "c\u{85}d", "e\u{c}f", "g\u{2029}h\u{b}"];
    let file = given("a.txt", inside.join("\n"))?;
    ensure!(texts(file.as_ref())? == inside, "{:?}", texts(file.as_ref())?);
    let json = inside.map(|text| format!("{{\"text\": \"{}\"}}", text.replace(['\u{c}', '\u{b}'], "")));
    let file = given("a.jsonl", json.join("\r\n"))?;
    ensure!(
        texts(file.as_ref())?[0] == inside[0] && texts(file.as_ref())?.len() == 4,
        "{:?}",
        texts(file.as_ref())?
    );
    for text in ["a\rb\rc\r", "a\n\nb\rc\n", "a\n\nb\r\r\n"] {
        let file = given("mac.txt", text)?;
        let line = if text.contains('\n') { "line 3" } else { "line 1" };
        refused(text, texts(file.as_ref()), &["mac.txt", line, "carriage return", "tr '\\r' '\\n'"])?;
    }
    Ok(())
}
