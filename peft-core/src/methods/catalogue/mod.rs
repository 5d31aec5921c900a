//! The methods by name, and when to use which: for people who choose one, and for programs that take a method's name.

mod entries;

use crate::error::{Error, Result};
use crate::methods::read::Row;
use crate::methods::{TABLE, from_json};
use crate::seam::MethodConfig;
use crate::target::closest;
use serde::Serialize;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// What there is to know of a method before it is chosen. Several may be one configuration with other values: DoRA is a
/// [`LoraConfig`](super::LoraConfig) with `use_dora`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// What [`by_name`] and recipes call it: `lora`, `prompt_tuning`.
    pub name: &'static str,
    /// Other names that [`by_name`] knows it by.
    pub aliases: &'static [&'static str],
    /// What people call it.
    pub title: &'static str,
    /// The file's `peft_type`.
    pub peft_type: &'static str,
    /// What kind of method it is.
    pub family: Family,
    /// The fields that make it this method, beside the defaults of its `peft_type`; a JSON object.
    pub sets: &'static str,
    /// Fields that have to be given, with a value that shows what they look like; a JSON object.
    pub needs: &'static str,
    /// Whether it folds into the weights of the base, which makes it free of cost afterwards.
    pub merges: Merges,
    /// Where in the model it acts.
    pub acts: &'static str,
    /// What it computes.
    pub formula: &'static str,
    /// Where it is from; empty where it is older than papers about it.
    pub paper: &'static str,
    /// When to take it, in one sentence.
    pub take_it_when: &'static str,
    /// Which other programs read its files.
    pub read_by: &'static str,
    /// Learning rates for Adam that papers and PEFT's examples use, with a margin.
    pub learning_rates: (f64, f64),
}

/// Kinds of methods, by what they train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// A change of weights in few numbers.
    Weights,
    /// A scale or a shift, a number a channel.
    Vectors,
    /// Vectors that the model reads beside its words, at the input or in every layer.
    Prompts,
    /// Small networks in the layers.
    Adapters,
    /// Parameters of the model itself.
    Copies,
}

/// Whether a method folds into the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Merges {
    /// Everywhere.
    Yes,
    /// Where a layer has a bias that can take what is learned.
    WithBias,
    /// It is no map on weights.
    No,
}

/// All methods, those most in use first.
pub fn catalogue() -> impl Iterator<Item = &'static Entry> {
    entries::ALL.iter().copied().flatten()
}

/// The configuration of a method with some of its fields set, taken to the letter: what a user writes.
///
/// ```
/// # fn main() -> peft_core::Result<()> {
/// # let map = |json| match json { serde_json::Value::Object(map) => map, _ => Default::default() };
/// let config = peft_core::methods::by_name("dora", map(serde_json::json!({ "r": 16 })))?;
/// assert!(format!("{config:?}").contains("r: 16") && format!("{config:?}").contains("use_dora: true"));
///
/// let error = peft_core::methods::by_name("lora", map(serde_json::json!({ "lora_alhpa": 16 }))).unwrap_err();
/// assert!(error.to_string().starts_with("lora: lora_alhpa: is no field of LoRA; did you mean `lora_alpha`"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A name that is no method's and a field that the method does not have, with the closest there are; a value that the field
/// cannot have.
pub fn by_name(name: &str, fields: Map<String, Value>) -> Result<Box<dyn MethodConfig>> {
    let entry = Entry::named(name)?;
    from_json(entry.json(fields)?, entry.name)
}

impl Entry {
    /// The method of a name: its own, another one, or a `peft_type`, in upper or lower case, with `-` for `_`.
    ///
    /// # Errors
    /// A name that is no method's, with the closest there are.
    pub fn named(name: &str) -> Result<&'static Self> {
        let plain = name.to_lowercase().replace('-', "_");
        let of_type = |e: &&Self| e.peft_type.eq_ignore_ascii_case(&plain);
        let found = catalogue().find(|e| e.name == plain || e.aliases.contains(&plain.as_str()));
        found.or_else(|| catalogue().find(of_type)).ok_or_else(|| {
            let names: Vec<&str> = catalogue().map(|e| e.name).collect();
            let close = close(&plain, names.iter().copied());
            Error::Input(format!("there is no method `{name}`{close} There are {}", names.join(", ")))
        })
    }

    /// The method that a configuration is one of, as far as its fields say: the one of its `peft_type` that sets most of what
    /// `config` has.
    pub fn of(config: &Map<String, Value>) -> Option<&'static Self> {
        let kind = config.get("peft_type").and_then(Value::as_str)?;
        let fits = |e: &&Self| {
            e.peft_type == kind
                && e.sets().is_ok_and(|sets| sets.iter().all(|(f, v)| config.get(f).is_some_and(|c| c == v)))
        };
        catalogue().filter(fits).max_by_key(|e| e.sets().map_or(0, |sets| sets.len()))
    }

    /// The fields that it reads, by their names in a file, with the values that they have unless something else is said.
    pub fn fields(&self) -> Result<Map<String, Value>> {
        let mut fields = (self.row()?.own)()?;
        fields.extend(self.sets()?);
        Ok(fields)
    }

    /// The `adapter_config.json` of this method with some fields set.
    ///
    /// # Errors
    /// A field that the method does not have, with the closest there are.
    pub fn json(&self, fields: Map<String, Value>) -> Result<Value> {
        let known = (self.row()?.all)()?;
        let mut all = self.sets()?;
        for (field, value) in fields {
            if !known.contains_key(&field) {
                let close = close(&field, known.keys().map(String::as_str));
                return Err(Error::config(self.name, field, format!("is no field of {}{close}", self.title)));
            }
            if field == "peft_type" && value != self.peft_type {
                return Err(Error::config(self.name, field, format!("is {}, found {value}", self.peft_type)));
            }
            all.insert(field, value);
        }
        all.insert("peft_type".into(), self.peft_type.into());
        Ok(Value::Object(all))
    }

    /// [`Entry::needs`], as JSON.
    pub fn example(&self) -> Result<Map<String, Value>> {
        object(self.name, "needs", self.needs)
    }

    /// Learning rates that are usual with Adam.
    pub fn usual_learning_rates(&self) -> RangeInclusive<f64> {
        self.learning_rates.0..=self.learning_rates.1
    }

    fn sets(&self) -> Result<Map<String, Value>> {
        object(self.name, "sets", self.sets)
    }

    fn row(&self) -> Result<&'static Row> {
        let unknown = || Error::config(self.name, "peft_type", format!("{} is not there", self.peft_type));
        TABLE.iter().find(|row| row.peft_type == self.peft_type).ok_or_else(unknown)
    }
}

fn object(name: &str, field: &str, json: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(json).map_err(|e| Error::config(name, field, e))
}

/// `; did you mean ..?` of what is close, if anything is.
fn close<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let close: Vec<String> = closest(name, names).into_iter().map(|n| format!("`{n}`")).collect();
    if close.is_empty() { ".".into() } else { format!("; did you mean {}?", close.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    /// Every `peft_type` has an entry, and every entry a configuration that can be read and that it is recognised by.
    #[test]
    fn the_catalogue_and_the_table_are_one() {
        let types: BTreeSet<&str> = catalogue().map(|e| e.peft_type).collect();
        assert_eq!(types, TABLE.iter().map(|row| row.peft_type).collect());
        let mut names = BTreeSet::new();
        for entry in catalogue() {
            for name in std::iter::once(&entry.name).chain(entry.aliases) {
                assert!(names.insert(*name), "{name} twice");
                assert_eq!(Entry::named(&name.to_uppercase().replace('_', "-")).unwrap(), entry);
            }
            by_name(entry.name, entry.example().unwrap()).unwrap();
            let mut all = entry.fields().unwrap();
            assert!(all.contains_key("modules_to_save") && !all.contains_key("loftq_config"));
            all.insert("peft_type".into(), entry.peft_type.into());
            assert_eq!(Entry::of(&all).unwrap(), entry);
            assert!(entry.sets().unwrap().keys().all(|f| all.contains_key(f)), "{}", entry.name);
            assert!(entry.learning_rates.0 < entry.learning_rates.1);
            assert_eq!(Entry::named(entry.peft_type).unwrap().peft_type, entry.peft_type);
        }
    }

    #[test]
    fn presets_are_those_of_the_configurations() {
        use crate::methods::BottleneckConfig;
        let presets = [
            ("houlsby", BottleneckConfig::houlsby()),
            ("pfeiffer", BottleneckConfig::pfeiffer()),
            ("parallel", BottleneckConfig::parallel()),
        ];
        for (name, config) in presets {
            assert_eq!(format!("{:?}", by_name(name, Map::new()).unwrap()), format!("{config:?}"));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_meant() {
        let error = |name: &str, fields| by_name(name, map(fields)).unwrap_err().to_string();
        let text = error("lroa", serde_json::json!({}));
        assert!(text.contains("`lroa`") && text.contains("`lora`"), "{text}");
        let text = error("lora", serde_json::json!({ "rnak_pattern": null }));
        assert!(text.contains("did you mean `rank_pattern`"), "{text}");
        let text = error("lora", serde_json::json!({ "r": "many" }));
        assert!(text.starts_with("lora: r: \"many\" is not what is expected"), "{text}");
        let text = error("ia3", serde_json::json!({ "peft_type": "LORA" }));
        assert_eq!(text, "ia3: peft_type: is IA3, found \"LORA\"");
    }
}
