//! What an adapter's file had beyond what its method writes.

use serde_json::{Map, Value};

/// What the method itself does not write again: fields as the file had them, and entries of lists and tables that mean
/// nothing in this model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Map<String, Value>);

impl Kept {
    /// Puts it back into the method's own `adapter_config.json`.
    pub fn restore(&self, fields: &mut Map<String, Value>) {
        for (field, kept) in &self.0 {
            match (fields.get_mut(field), kept) {
                (Some(Value::Array(own)), Value::Array(lost)) => {
                    own.extend(lost.iter().filter(|v| !own.contains(v)).cloned().collect::<Vec<_>>());
                }
                (Some(Value::Object(own)), Value::Object(lost)) => own.extend(lost.clone()),
                _ => drop(fields.insert(field.clone(), kept.clone())),
            }
        }
    }

    /// Adds whole fields.
    pub fn extend(&mut self, fields: Map<String, Value>) {
        self.0.extend(fields);
    }

    /// Adds a field, or entries of one.
    pub fn lost(&mut self, field: &str, lost: Value) {
        match (self.0.get_mut(field), lost) {
            (Some(Value::Array(all)), Value::Array(more)) => all.extend(more),
            (Some(Value::Object(all)), Value::Object(more)) => all.extend(more),
            (_, lost) => drop(self.0.insert(field.to_owned(), lost)),
        }
    }
}
