//! `adapter_config.json` of another program, for one model.

use crate::error::{Error, Result};
use crate::methods::read::{Read, Readers};
use crate::peft::kept::Kept;
use crate::seam::{Outline, Resolved};
use crate::warning::Warning;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The fields, less what was passed over.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    config: Value,
    place: &'a str,
    kept: Kept,
}

impl<'a> Fields<'a> {
    pub fn new(config: Value, place: &'a str) -> Self {
        Self { config, place, kept: Kept::default() }
    }

    /// The method, completed from the model. A name that the model lacks is passed over, as long as another one of its field
    /// is there.
    pub fn method(
        mut self,
        readers: &Readers,
        outline: &Outline,
        warnings: &mut Vec<Warning>,
    ) -> Result<(Resolved, Kept)> {
        // Where nothing of a field matches, its first name is as good as any to say so.
        let mut first: BTreeMap<&str, Error> = BTreeMap::new();
        loop {
            let mut said = Vec::new();
            let Read { config, kept, .. } = readers.read_file(self.config.clone(), self.place, &mut said)?;
            let error = match config.resolve(outline) {
                Ok(method) => {
                    warnings.append(&mut said);
                    self.kept.extend(kept);
                    return Ok((method, self.kept));
                }
                Err(error) => error,
            };
            let Error::NoTarget { field, ref pattern, .. } = error else { return Err(error) };
            match self.pass_over(field, pattern) {
                Some(warning) => warnings.push(warning),
                None => return Err(first.remove(field).unwrap_or(error)),
            }
            first.entry(field).or_insert(error);
        }
    }

    /// Takes out what matches nothing, if the rest of the field may do without it.
    fn pass_over(&mut self, field: &str, pattern: &str) -> Option<Warning> {
        let message = format!("`{pattern}` matches nothing in this model: it is kept, and has no effect");
        let warning = Warning::new(self.place, field, message);
        match self.config.get_mut(field)? {
            Value::Array(entries) => {
                let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                let name = pattern.strip_prefix("layer ").unwrap_or(pattern);
                let at = entries.iter().position(|v| text(v) == name || text(v) == pattern)?;
                if entries.len() == 1 && NEEDED.contains(&field) {
                    return None;
                }
                let lost = entries.remove(at);
                self.forget(SUBSET, &lost);
                self.kept.lost(field, Value::Array(vec![lost]));
            }
            Value::Object(entries) => {
                // A number is for some places; a list (AdaLoRA's ranks, tokens of a layer) has tensors of its own.
                entries.get(pattern).filter(|value| value.is_number())?;
                let lost = entries.shift_remove_entry(pattern)?;
                self.kept.lost(field, Value::Object(Map::from_iter([lost])));
            }
            flag @ Value::Bool(true) => {
                *flag = Value::Bool(false);
                self.kept.lost(field, Value::Bool(true));
            }
            text @ Value::String(_) if !NEEDED.contains(&field) => {
                let text = std::mem::replace(text, Value::Array(Vec::new()));
                self.kept.lost(field, text);
            }
            _ => return None,
        }
        Some(warning)
    }

    /// Takes a target out of another field that may name targets alone.
    fn forget(&mut self, field: &str, name: &Value) {
        let Some(Value::Array(entries)) = self.config.get_mut(field) else { return };
        if let Some(at) = entries.iter().position(|v| v == name) {
            let lost = entries.remove(at);
            self.kept.lost(field, Value::Array(vec![lost]));
        }
    }
}

/// (IA)³ names some of its targets again.
const SUBSET: &str = "feedforward_modules";

/// Fields that say what is adapted: without any entry nothing would be.
const NEEDED: &[&str] = &["target_modules", "target_parameters", "layers_to_transform"];
