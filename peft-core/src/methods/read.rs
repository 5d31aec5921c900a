//! Reading `adapter_config.json`, through one of two doors. What a user writes is taken to the letter: every field with a
//! value that this crate has no code for is an error. What another program wrote is taken as PEFT takes it: what changes
//! no number is kept for the next file, and said.

use crate::error::{Error, Result};
use crate::io::adapter::peft_type;
use crate::methods::TABLE;
use crate::methods::config::{DESCRIPTIVE, PeftConfig, defaults, fields};
use crate::seam::MethodConfig;
use crate::warning::Warning;
use serde_json::{Map, Value};

/// A configuration that a file may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub peft_type: &'static str,
    read: fn(Value, &str) -> Result<Read>,
    /// The fields that this crate has code for, with their defaults.
    pub own: fn() -> Result<Map<String, Value>>,
    /// All fields with their defaults, as PEFT writes them.
    pub all: fn() -> Result<Map<String, Value>>,
}

pub(crate) const fn row<C: PeftConfig>() -> Row {
    Row { peft_type: C::TYPE, read: read::<C>, own: own_fields::<C>, all: all_fields::<C> }
}

/// The configurations that a file may have, by its `peft_type`: this crate's, and those that were added.
#[derive(Debug, Clone)]
pub(crate) struct Readers(Vec<Row>);

impl Default for Readers {
    fn default() -> Self {
        Self(TABLE.to_vec())
    }
}

impl Readers {
    /// Adds a configuration.
    ///
    /// # Errors
    /// A `peft_type` that another configuration has.
    pub fn add<C: PeftConfig>(&mut self) -> Result<()> {
        if self.0.iter().any(|row| row.peft_type == C::TYPE) {
            return Err(Error::Exists { place: "peft_type".into(), name: C::TYPE.into() });
        }
        self.0.push(row::<C>());
        Ok(())
    }

    /// What a parsed file comes to; `place` is what errors call it.
    fn read(&self, config: Value, place: &str) -> Result<Read> {
        let kind = peft_type(&config, place)?;
        match self.0.iter().find(|row| row.peft_type == kind) {
            Some(row) => (row.read)(config, place),
            None => {
                let known: Vec<&str> = self.0.iter().map(|row| row.peft_type).collect();
                let message = format!(
                    "`{kind}` is not one of {}; a method from outside is read once `Peft::register` knows it",
                    known.join(", ")
                );
                Err(Error::config(place, "peft_type", message))
            }
        }
    }

    /// As [`from_json`], of what another program wrote. What is passed over is said in `warnings`.
    ///
    /// # Errors
    /// As [`from_json`], for what would change the numbers of a loaded adapter alone.
    pub fn read_file(&self, config: Value, place: &str, warnings: &mut Vec<Warning>) -> Result<Read> {
        let read = self.read(config, place)?;
        for Foreign { field, effect, message } in &read.foreign {
            match effect {
                Effect::Numbers => return Err(Error::config(place, field, message)),
                Effect::Unknown => {
                    let message = "is not known here: it is kept, and has no effect";
                    warnings.push(Warning::new(place, field, message));
                }
                Effect::None => {}
            }
        }
        Ok(read)
    }
}

/// What a file comes to.
#[derive(Debug)]
pub(crate) struct Read {
    pub config: Box<dyn MethodConfig>,
    /// Fields that the method takes its defaults for, as the file has them.
    pub kept: Map<String, Value>,
    /// Fields that this crate has no use for.
    pub foreign: Vec<Foreign>,
}

/// A field that this crate has no use for.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub field: String,
    pub effect: Effect,
    pub message: String,
}

/// What a loaded adapter would be with such a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Another one, as far as anybody can tell.
    Numbers,
    /// The same: PEFT passes over it, too.
    Unknown,
    /// The same: it says how training began.
    None,
}

/// The configuration in a parsed `adapter_config.json` of one of this crate's methods; `place` is what errors call it.
///
/// # Errors
/// An unknown `peft_type`, a field of the wrong type, and every field with a value other than its default that
/// this crate has no code for: it would change the numbers.
pub fn from_json(config: Value, place: &str) -> Result<Box<dyn MethodConfig>> {
    let Read { config, kept, foreign } = Readers::default().read(config, place)?;
    if let Some((field, value)) = kept.iter().next() {
        return Err(Error::config(place, field, format!("{value} is for adapters that are trained already")));
    }
    match foreign.into_iter().next() {
        Some(Foreign { field, message, .. }) => Err(Error::config(place, field, message)),
        None => Ok(config),
    }
}

fn read<C: PeftConfig>(mut config: Value, place: &str) -> Result<Read> {
    let mut kept = Map::new();
    let inert: Map<String, Value> =
        serde_json::from_str(C::INERT).map_err(|e| Error::config(C::TYPE, "INERT", e))?;
    let harmless = |field: &str, value: &Value| match inert.get(field) {
        Some(Value::Array(values)) => values.contains(value),
        Some(all) => *all == Value::Bool(true),
        None => false,
    };
    if let Some(fields) = config.as_object_mut() {
        fields.remove("peft_type");
        let own = own_fields::<C>()?;
        for (field, default) in own {
            let Some(value) = fields.get(&field) else { continue };
            // Where Python looks whether something is true, or for its entries, null is as good as false or none.
            let falsy = match &default {
                Value::Bool(_) => Some(Value::Bool(false)),
                empty => is_empty(empty).then(|| empty.clone()),
            };
            let null = value.is_null() && alone::<C>(&field, value).is_some();
            let instead = if null { falsy } else { harmless(&field, value).then_some(default) };
            if let Some(instead) = instead {
                kept.extend(fields.insert(field.clone(), instead).map(|value| (field, value)));
            }
        }
    }
    let read: C = serde_json::from_value(config.clone()).map_err(|e| {
        let (field, e) = culprit::<C>(&config).unwrap_or_else(|| (C::TYPE.to_owned(), e.to_string()));
        Error::config(place, field, e)
    })?;
    let defaults = defaults::<C>()?;
    let mut foreign = Vec::new();
    for (field, value) in &read.as_ref().rest {
        let default = defaults.get(field);
        let fine = match default {
            Some(default) => same(default, value),
            None => DESCRIPTIVE.contains(&field.as_str()) || is_empty(value),
        };
        if !fine {
            let only = default.unwrap_or(&Value::Null);
            let message = format!("{value} is not supported: only {only} is");
            let effect = match default {
                None => Effect::Unknown,
                Some(_) if harmless(field, value) => Effect::None,
                Some(_) => Effect::Numbers,
            };
            foreign.push(Foreign { field: field.clone(), effect, message });
        }
    }
    Ok(Read { config: Box::new(read), kept, foreign })
}

/// All fields, with their defaults.
fn all_fields<C: PeftConfig>() -> Result<Map<String, Value>> {
    fields(&empty::<C>()?)
}

/// The configuration that says nothing: every field has its default.
fn empty<C: PeftConfig>() -> Result<C> {
    serde_json::from_value(Value::Object(Map::new())).map_err(|e| Error::config(C::TYPE, "the default", e))
}

/// The method's own fields, with their defaults.
fn own_fields<C: PeftConfig>() -> Result<Map<String, Value>> {
    match serde_json::to_value(empty::<C>()?).map_err(|e| Error::config(C::TYPE, "the default", e))? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

/// The field that cannot be read. Every field has a default, so each can be tried alone.
fn culprit<C: PeftConfig>(config: &Value) -> Option<(String, String)> {
    config.as_object()?.iter().find_map(|(field, value)| {
        let error = alone::<C>(field, value)?;
        Some((field.clone(), format!("{value} is not what is expected here ({error})")))
    })
}

/// Why a field cannot have a value, if it cannot.
fn alone<C: PeftConfig>(field: &str, value: &Value) -> Option<serde_json::Error> {
    let alone = Value::Object(Map::from_iter([(field.to_owned(), value.clone())]));
    serde_json::from_value::<C>(alone).err()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

/// Equal, with 8 equal to 8.0.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(x), Some(y)) if x == y)
}
