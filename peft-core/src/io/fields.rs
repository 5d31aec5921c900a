//! Reading a `config.json`: every wrong or unsupported field is named.

use crate::check;
use crate::error::{Error, Result};
use crate::io::{is_special, shown};
use crate::warning::Warning;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Display;

/// The fields of a configuration, with the place that errors name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub json: &'a Value,
    place: &'a str,
}

impl<'a> Fields<'a> {
    pub fn new(json: &'a Value, place: &'a str) -> Self {
        Self { json, place }
    }

    /// What errors call the object in `field`.
    pub fn within(&self, field: &str) -> String {
        format!("{}: {field}", self.place)
    }

    /// An error about a field.
    pub fn wrong(&self, field: &str, message: impl Display) -> Error {
        Error::config(self.place, field, message)
    }

    /// A warning about a field.
    pub fn passed_over(&self, field: &str, message: impl Display) -> Warning {
        Warning::new(self.place, field, message)
    }

    /// The field's value; `None` where it is missing or null.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>> {
        match self.json.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let read = serde_json::from_value(value.clone());
                read.map(Some).map_err(|e| {
                    let shown = shown(value);
                    let why = if is_special(value) { "it is no finite number".into() } else { e.to_string() };
                    self.wrong(field, format!("{shown} is not what is expected here ({why})"))
                })
            }
        }
    }

    /// The field's value, or transformers' default.
    pub fn or<T: DeserializeOwned>(&self, field: &str, default: T) -> Result<T> {
        Ok(self.get(field)?.unwrap_or(default))
    }

    /// The field's value, null included, or transformers' default where it is missing.
    pub fn or_if_absent<T: DeserializeOwned>(&self, field: &str, default: Option<T>) -> Result<Option<T>> {
        if self.json.get(field).is_none() { Ok(default) } else { self.get(field) }
    }

    /// A field that must be there.
    pub fn need<T: DeserializeOwned>(&self, field: &str) -> Result<T> {
        self.get(field)?.ok_or_else(|| self.wrong(field, "is missing"))
    }

    /// A size: a positive integer that must be there.
    pub fn size(&self, field: &str) -> Result<i64> {
        self.positive(field, self.need(field)?)
    }

    /// Checks that a size is positive.
    pub fn positive(&self, field: &str, value: i64) -> Result<i64> {
        check::positive(self.place, field, value).map(|()| value)
    }

    /// Checks that a factor is positive.
    pub fn above_zero(&self, field: &str, value: f64) -> Result<f64> {
        check::should_be(value > 0.0, "above 0", self.place, field, value).map(|()| value)
    }

    /// What a norm adds to a variance, or transformers' default: below 0 there would be roots of negative numbers.
    pub fn epsilon(&self, field: &str, default: f64) -> Result<f64> {
        let value = self.or(field, default)?;
        if value >= 0.0 {
            Ok(value)
        } else {
            Err(self.wrong(field, format!("should not be below 0, is {value}")))
        }
    }

    /// A dropout probability, or transformers' default.
    pub fn dropout(&self, field: &str, default: f64) -> Result<f64> {
        let p = self.or(field, default)?;
        check::share(self.place, field, p).map(|()| p)
    }

    /// The id of a token; null and the −1 of old files mean none.
    pub fn token_id(&self, field: &str) -> Result<Option<i64>> {
        Ok(self.get(field)?.filter(|id| *id >= 0))
    }

    /// A field that this crate has nothing for, whatever it says.
    pub fn absent(&self, field: &str) -> Result<()> {
        match self.get::<Value>(field)? {
            Some(value) => Err(self.wrong(field, format!("{value} is not supported"))),
            None => Ok(()),
        }
    }

    /// A field that this crate has one value of: another one would change the numbers.
    pub fn only(&self, field: &str, only: impl Into<Value>) -> Result<()> {
        let only = only.into();
        match self.json.get(field) {
            // 1 is 1.0.
            Some(value) if value.is_number() && value.as_f64() == only.as_f64() => Ok(()),
            Some(value) if *value != only && !value.is_null() => {
                Err(self.wrong(field, format!("{} is not supported, only {only} is", shown(value))))
            }
            _ => Ok(()),
        }
    }
}

/// A `config.json` with some of its fields changed.
pub(crate) fn patched<const N: usize>(json: &Value, changes: [(&str, Value); N]) -> Value {
    let mut json = json.clone();
    if let Some(fields) = json.as_object_mut() {
        fields.extend(changes.map(|(field, value)| (field.to_owned(), value)));
    }
    json
}
