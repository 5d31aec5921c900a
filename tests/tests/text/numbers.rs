//! Texts with numbers, for regression.

use crate::{folder, given};
use anyhow::{Result, ensure};
use peft_core::text::{Dataset, TextEncoder};
use tch::{Device, Kind};
use tests::{limits, refused};

/// A label of each form, from JSON and from a table; all but the labels is as for classes.
#[test]
fn labels_are_numbers() -> Result<()> {
    let json = "{\"sentence1\": \"the cat\", \"sentence2\": \"a dog\", \"label\": 3.8}\n\
                {\"sentence1\": \"a\", \"sentence2\": \"\", \"label\": -2}\n\
                {\"sentence1\": \"the\", \"sentence2\": \"a\", \"label\": 1e-3, \"split\": 1}";
    let table = "sentence1,sentence2,label,split\nthe cat,a dog,3.80,\na,,-2,\nthe,a,0.001,1\n";
    let encoder = TextEncoder::open(folder("bert"), limits(96, 64, 0))?;
    for (name, text) in [("a.jsonl", json), ("a.csv", table)] {
        let data = Dataset::numbers(given(name, text)?.as_ref())?;
        ensure!(data.rows.iter().map(|row| row.label).eq([3.8f32, -2.0, 0.001]), "{data:?}");
        ensure!(data.warnings.len() == 1 && data.warnings[0].field == "split", "{data:?}");
        let encoded = encoder.encode_numbers(&data)?;
        let texts: Vec<_> =
            data.rows.iter().map(|r| (r.text.clone(), r.pair.clone().unwrap_or_default())).collect();
        ensure!(encoded.ids == encoder.pairs(&texts)?.ids && encoded.token_types.is_some(), "{encoded:?}");
        let (batch, numbers) = encoded.batch(&[2, 0], Device::Cpu)?;
        ensure!(
            numbers.kind() == Kind::Float && Vec::<f32>::try_from(&numbers)? == [0.001, 3.8],
            "{numbers:?}"
        );
        ensure!(batch.ids()?.size2()?.0 == 2 && batch.token_types.is_some(), "{batch:?}");
        refused("row 3", encoded.batch(&[3], Device::Cpu), &["a row beyond the 3"])?;
    }
    Ok(())
}

#[test]
fn labels_that_are_no_numbers() -> Result<()> {
    for (label, parts) in [
        ("\"good\"", &["`label` is \"good\"", "expected a number"][..]),
        ("\"2.5\"", &["expected a number"]),
        ("true", &["expected a number"]),
        ("[1, 2]", &["expected a number"]),
        ("1e39", &["f32"]),
        ("null", &["no `label`"]),
    ] {
        let text = format!("{{\"text\": \"a\", \"label\": 1}}\n{{\"text\": \"b\", \"label\": {label}}}");
        let found = Dataset::numbers(given("a.jsonl", text)?.as_ref());
        refused(label, found, &[parts, &["a.jsonl", "line 2"]].concat())?;
    }
    let nan = Dataset::numbers(given("a.csv", "text,label\na,nan\n")?.as_ref());
    refused("nan", nan, &["a.csv", "line 2", "\"nan\"", "expected a number"])?;
    let hidden = Dataset::numbers(given("a.tsv", "text\tlabel\na\t-1.0\nb\t-1\n")?.as_ref());
    refused("a test set", hidden, &["every `label` is -1", "hidden"])?;
    Ok(())
}
