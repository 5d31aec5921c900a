//! Reading a `config.json`: every wrong or unsupported field is named.

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Display;

/// The fields of a configuration, with the place that errors name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    pub json: &'a Value,
    place: &'a str,
}

impl<'a> Fields<'a> {
    pub fn new(json: &'a Value, place: &'a str) -> Self {
        Self { json, place }
    }

    /// An error about a field.
    pub fn wrong(&self, field: &str, message: impl Display) -> Error {
        Error::config(self.place, field, message)
    }

    /// The field's value; `None` where it is missing or null.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>> {
        match self.json.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let read = serde_json::from_value(value.clone());
                read.map(Some)
                    .map_err(|e| self.wrong(field, format!("{value} is not what is expected here ({e})")))
            }
        }
    }

    /// The field's value, or transformers' default.
    pub fn or<T: DeserializeOwned>(&self, field: &str, default: T) -> Result<T> {
        Ok(self.get(field)?.unwrap_or(default))
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
        if value > 0 {
            Ok(value)
        } else {
            Err(self.wrong(field, format!("should be a positive integer, is {value}")))
        }
    }

    /// A probability, 0 where it is missing.
    pub fn dropout(&self, field: &str) -> Result<f64> {
        let p = self.or(field, 0.0)?;
        if (0.0..1.0).contains(&p) {
            Ok(p)
        } else {
            Err(self.wrong(field, format!("should be in [0, 1), is {p}")))
        }
    }

    /// A field that this crate has one value of: another one would change the numbers.
    pub fn only(&self, field: &str, only: impl Into<Value>) -> Result<()> {
        let only = only.into();
        match self.json.get(field) {
            Some(value) if *value != only && !value.is_null() => {
                Err(self.wrong(field, format!("{value} is not supported, only {only} is")))
            }
            _ => Ok(()),
        }
    }
}
