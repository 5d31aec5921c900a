//! CSV and TSV: the forms that JSON has, read exactly or refused with their line.

use crate::given;
use anyhow::{Result, ensure};
use peft_core::text::{Corpus, Dataset, pairs, texts};
use peft_core::train::Shuffle;
use serde_json::{Map, Value};
use tests::refused;

/// The same rows as a table and as JSON lines.
fn both(names: &[&str], rows: &[Vec<String>], separator: char) -> [String; 2] {
    let quoted = |cell: &str| {
        let plain = !cell.is_empty() && !cell.contains(['"', '\n', '\r', separator]);
        if plain { cell.to_owned() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
    };
    let line = |cells: Vec<String>| cells.join(&separator.to_string());
    let mut table = vec![line(names.iter().map(|n| quoted(n)).collect())];
    table.extend(rows.iter().map(|cells| line(cells.iter().map(|c| quoted(c)).collect())));
    let object = |cells: &Vec<String>| -> String {
        let fields = names.iter().zip(cells).map(|(n, c)| ((*n).to_owned(), Value::from(c.as_str())));
        Value::Object(Map::from_iter(fields)).to_string()
    };
    [table.join("\n"), rows.iter().map(object).collect::<Vec<_>>().join("\n")]
}

/// Whatever a text has in it, it is read as it was written.
#[test]
fn tables_are_the_same_rows() -> Result<()> {
    let pieces = ["a", "the cat", ",", "\t", "\"", "\"\"", "\n", "\r\n", " ", "é", "🦀", ";", "\r", "0"];
    let mut draw = 0;
    let mut word = || -> String {
        draw += 1;
        let order = Shuffle::new(pieces.len(), 3).epoch(draw);
        format!("w{}", order[..order[0] / 2].iter().map(|piece| pieces[*piece]).collect::<String>())
    };
    for (separator, suffix) in [(',', "csv"), ('\t', "TSV")] {
        for names in [
            &["text"][..],
            &["prompt", "completion"],
            &["instruction", "input", "output"],
            &["sentence1", "sentence2", "label"],
            &["text", "label", "id"],
        ] {
            let rows: Vec<Vec<String>> = (0..50).map(|_| names.iter().map(|_| word()).collect()).collect();
            let [table, json] = both(names, &rows, separator);
            for table in [table.clone(), format!("\u{feff}{table}\n\n"), lines_of_windows(&table)] {
                let (table, json) = (given(&format!("a.{suffix}"), &table)?, given("a.jsonl", &json)?);
                if names.contains(&"label") {
                    let (a, b) = (Dataset::read(table.as_ref())?, Dataset::read(json.as_ref())?);
                    ensure!(a.rows == b.rows && a.warnings.len() == b.warnings.len(), "{names:?}: {a:?}");
                } else {
                    let (a, b) = (Corpus::read(table.as_ref())?, Corpus::read(json.as_ref())?);
                    ensure!(a.rows == b.rows && a.form == b.form, "{names:?}: {a:?}");
                }
                match names {
                    ["text"] => ensure!(texts(table.as_ref())? == texts(json.as_ref())?, "texts"),
                    ["sentence1", ..] => ensure!(pairs(table.as_ref())? == pairs(json.as_ref())?, "pairs"),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// With the ends of lines that Windows has between rows; what is within quotes stays.
fn lines_of_windows(table: &str) -> String {
    let mut quoted = false;
    let end = |c: char| {
        quoted ^= c == '"';
        if c == '\n' && !quoted { "\r\n".to_owned() } else { c.to_string() }
    };
    table.chars().map(end).collect()
}

/// Labels are what they would be in JSON, an index that pandas wrote is none, and chats are strings of JSON.
#[test]
fn what_tables_hold() -> Result<()> {
    let data = Dataset::read(given("a.csv", ",text,label\n0,a,1\n1,b,1.0\n2,7,-1\n")?.as_ref())?;
    ensure!(data.labels() == ["-1", "1"] && data.rows[2].text == "7", "{data:?}");
    ensure!(data.warnings.len() == 1, "{data:?}");
    let names = Dataset::read(given("a.tsv", "text\tlabel\na\t007\nb\tgood\n")?.as_ref())?.labels();
    ensure!(names == ["007", "good"], "{names:?}");
    let messages = r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b, c"}]"#;
    let [table, _] = both(&["messages"], &[vec![messages.into()]], ',');
    let json = given("a.jsonl", format!("{{\"messages\": {messages}}}"))?;
    let (a, b) = (Corpus::read(given("a.csv", table)?.as_ref())?, Corpus::read(json.as_ref())?);
    ensure!(a.rows == b.rows && a.form == b.form && a.warnings.is_empty(), "{a:?}");
    let more = Corpus::read(given("a.csv", "text,label\na,b\n")?.as_ref())?.warnings;
    ensure!(more.len() == 1 && more[0].field == "label", "{more:?}");
    Ok(())
}

#[test]
fn tables_that_are_wrong_are_named_by_their_line() -> Result<()> {
    for (name, text, parts) in [
        (
            "a.csv",
            "text,label\na,x\n\"b\nc\",y\nd\n",
            &["line 5", "1 fields", "expected 2", "`text`, `label`"][..],
        ),
        ("a.csv", "text,label\na,x,y\n", &["line 2", "3 fields between commas"]),
        ("a.csv", "text,label\na,x\n\"b,y\nc,z\n", &["line 3", "quote that nothing ends"]),
        ("a.csv", "text,label\n\"b\" c,y\n", &["line 2", "` ` after the quote", "written twice"]),
        ("a.tsv", "text\tlabel\n\"So\" he said\ty\n", &["line 2", "quoting=3", "a.tsv'", "to_json"]),
        ("a.csv", "text;label\na;x\n", &["line 1", "`text;label`", "commas"]),
        ("a.tsv", "text,label\na,x\n", &["line 1", "one field", "tabs"]),
        ("a.csv", "text,text\na,x\n", &["line 1", "`text` is there twice"]),
        ("a.csv", "text,\na,x\n", &["line 1", "field 2 has no name"]),
        ("a.csv", "text,label\ra,x\r", &["line 1", "carriage return"]),
        ("a.csv", "text,label\na,\n", &["line 2", "`label` is empty"]),
        ("a.csv", "text,label\na,2.5\n", &["line 2", "`label` is 2.5", "regression"]),
        ("a.csv", "word,label\na,x\n", &["line 2", "no `text`", "`word`, `label`"]),
        ("a.csv", "text,label\n", &["no rows", "names the fields"]),
        ("a.csv", "\n \n", &["no rows"]),
        ("a.csv", "", &["no rows"]),
    ] {
        refused(text, Dataset::read(given(name, text)?.as_ref()), &[parts, &[name]].concat())?;
    }
    refused(
        "a corpus",
        Corpus::read(given("a.csv", "a,b\nc,d\n")?.as_ref()),
        &["line 2", "no `text`", "`a`, `b`"],
    )?;
    refused(
        "messages",
        Corpus::read(given("a.csv", "messages\nhello\n")?.as_ref()),
        &["line 2", "`messages`"],
    )?;
    refused("bytes", Corpus::read(given("a.csv", b"text\ncaf\xe9\n")?.as_ref()), &["line 2", "Latin-1"])?;
    Ok(())
}
