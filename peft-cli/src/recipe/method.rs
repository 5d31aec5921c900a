//! The method of a recipe.

use crate::recipe::Recipe;
use anyhow::{Context, Result, bail, ensure};
use peft_core::TaskType;
use peft_core::io::read_json;
use peft_core::methods::catalogue::Entry;
use peft_core::seam::MethodConfig;
use serde_json::{Map, Value};

/// A method with its fields, for a model that is yet to be opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// What the catalogue says of it.
    pub entry: &'static Entry,
    fields: Map<String, Value>,
}

impl Method {
    pub(super) fn of(recipe: &Recipe) -> Result<Self> {
        let set = recipe.set.clone().unwrap_or_default();
        let Some(file) = &recipe.adapter_config else {
            let entry = Entry::named(recipe.method.as_deref().unwrap_or("lora"))?;
            entry.json(set.clone())?;
            return Ok(Self { entry, fields: set });
        };
        ensure!(
            recipe.method.is_none(),
            "method and adapter_config: both say the method, expected one of them"
        );
        let Value::Object(mut fields) = read_json(file)? else { bail!("{file}: is no object") };
        fields.extend(set);
        let entry = Entry::of(&fields).with_context(|| {
            format!("{file}: peft_type {} is no method here", fields.get("peft_type").unwrap_or(&Value::Null))
        })?;
        Ok(Self { entry, fields })
    }

    /// The fields that the recipe sets.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The configuration, for a task over a base of that name. What the recipe says itself counts.
    pub fn config(
        &self,
        task: TaskType,
        base: &str,
        revision: Option<&str>,
    ) -> Result<Box<dyn MethodConfig>> {
        let mut fields = self.fields.clone();
        let unset = |fields: &Map<String, Value>, name: &str| fields.get(name).is_none_or(Value::is_null);
        if unset(&fields, "task_type") {
            fields.insert("task_type".into(), serde_json::to_value(task)?);
        }
        if unset(&fields, "base_model_name_or_path") {
            fields.insert("base_model_name_or_path".into(), base.into());
        }
        if let Some(revision) = revision.filter(|_| unset(&fields, "revision")) {
            fields.insert("revision".into(), revision.into());
        }
        Ok(peft_core::methods::by_name(self.entry.name, fields)?)
    }
}
