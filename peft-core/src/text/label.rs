//! The `label` of a row, as a class or as a number.

use crate::error::Result;
use crate::text::records::{Record, brief};
use serde_json::Value;

/// What a row of a [`Dataset`](super::Dataset) is labelled with.
pub(super) trait Label: Sized {
    /// What its rows are, for messages.
    const ROWS: &'static str;

    /// The label of a row.
    fn read(record: &Record) -> Result<Self>;

    /// Whether it may stand for a label that is kept back: −1.
    fn hidden(&self) -> bool;
}

/// A class by its name.
impl Label for String {
    const ROWS: &'static str = "labelled texts";

    fn read(record: &Record) -> Result<Self> {
        let expected = "expected a string or an integer";
        match found(record)? {
            Value::String(label) if label.is_empty() => {
                Err(record.wrong(format!("`label` is empty, {expected}")))
            }
            Value::String(label) => Ok(label.clone()),
            Value::Bool(label) => Ok(label.to_string()),
            value @ Value::Number(number) => match number.as_f64() {
                _ if number.is_i64() || number.is_u64() => Ok(number.to_string()),
                // Tables with a gap somewhere are written with floats.
                Some(x) if x.fract() == 0.0 && x.abs() < 1e15 => Ok((x as i64).to_string()),
                _ => wrong(
                    record,
                    value,
                    &format!("{expected}: that is a number to be learned by regression, and no class"),
                ),
            },
            value @ Value::Array(_) => {
                wrong(record, value, &format!("{expected}: several classes a text are not supported"))
            }
            value => wrong(record, value, expected),
        }
    }

    fn hidden(&self) -> bool {
        self == "-1"
    }
}

/// A number, for regression.
impl Label for f32 {
    const ROWS: &'static str = "texts with a number";

    fn read(record: &Record) -> Result<Self> {
        let value = found(record)?;
        let Value::Number(number) = value else { return wrong(record, value, "expected a number") };
        match number.as_f64().map(|x| x as f32).filter(|x| x.is_finite()) {
            Some(number) => Ok(number),
            None => wrong(record, value, "expected a number that f32 has"),
        }
    }

    fn hidden(&self) -> bool {
        *self == -1.0
    }
}

fn found(record: &Record) -> Result<&Value> {
    record.get("label").ok_or_else(|| record.wrong(format!("no `label` ({})", record.names())))
}

fn wrong<T>(record: &Record, value: &Value, expected: &str) -> Result<T> {
    Err(record.wrong(format!("`label` is {}, {expected}", brief(&value.to_string()))))
}
