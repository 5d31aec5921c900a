//! The classes of a `config.json`: `num_labels`, `id2label`, `label2id`, as transformers reads them.

use crate::error::Result;
use crate::io::Fields;
use crate::warning::Warning;
use serde_json::Value;
use std::collections::BTreeMap;

/// How many classes there are, and how they are called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Classes {
    pub number: i64,
    /// One a class, or none at all.
    pub names: Vec<String>,
}

/// What a class is called that nobody has named.
pub(super) fn unnamed(class: i64) -> String {
    format!("LABEL_{class}")
}

impl Classes {
    /// As many as are `wanted`, or `num_labels`, or the entries of `id2label` whatever their numbers are, or
    /// transformers' 2. Names count where there are as many.
    pub fn read(f: &Fields<'_>, wanted: Option<i64>) -> Result<Self> {
        let named = names(f)?;
        let entries = named.as_ref().and_then(|named| i64::try_from(named.len()).ok());
        let number = match (wanted.or(f.get("num_labels")?), entries) {
            (Some(number), _) => f.positive("num_labels", number)?,
            (None, Some(0)) => return Err(f.wrong("id2label", "names no class")),
            (None, entries) => entries.unwrap_or(2),
        };
        let named = named.filter(|_| entries == Some(number)).unwrap_or_default();
        let name = |class| named.get(&class).cloned().unwrap_or_else(|| unnamed(class));
        let names = if named.is_empty() { Vec::new() } else { (0..number).map(name).collect() };
        Ok(Self { number, names })
    }

    /// What the file says of its own classes and does not count.
    pub fn passed_over(f: &Fields<'_>) -> Result<Vec<Warning>> {
        let (own, named) = (Self::read(f, None)?, names(f)?);
        let mut warnings = Vec::new();
        let mut say = |field: &str, message: String| warnings.push(f.passed_over(field, message));
        let n = own.number;
        match &named {
            Some(named) if own.names.is_empty() => {
                say(
                    "id2label",
                    format!("names {} classes and num_labels says {n}: the names do not count", named.len()),
                );
            }
            Some(named) if !named.keys().copied().eq(0..n) => {
                let numbers: Vec<String> = named.keys().take(8).map(i64::to_string).collect();
                let message = format!(
                    "has the numbers {}, and the {n} classes are those from 0 on",
                    numbers.join(", ")
                );
                say("id2label", format!("{message}: where none is said they are called LABEL_0 and so on"));
            }
            Some(_) => {}
            None if f.get::<Value>("label2id")?.is_some() => {
                say(
                    "label2id",
                    format!("does not count without id2label: there are {n} classes, without names"),
                );
            }
            None => {}
        }
        match f.get::<Value>("problem_type")? {
            None => {}
            Some(kind) if kind == "single_label_classification" => {}
            Some(kind) => say(
                "problem_type",
                format!("{kind} is a loss of training, which is the caller's: the logits are the same"),
            ),
        }
        Ok(warnings)
    }
}

/// `id2label`; a name that is a number or the like is called as it is written.
fn names(f: &Fields<'_>) -> Result<Option<BTreeMap<i64, String>>> {
    let name = |value: Value| match value {
        Value::String(name) => name,
        other => other.to_string(),
    };
    let named = f.get::<BTreeMap<i64, Value>>("id2label")?;
    Ok(named.map(|named| named.into_iter().map(|(class, value)| (class, name(value))).collect()))
}
