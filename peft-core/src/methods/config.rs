//! `adapter_config.json`: what all methods' files have in common, and how one is written. How one is read is in
//! [`read`](super::read).

use crate::error::{Error, Result};
use crate::seam::{Counting, FileForm, Method, MethodConfig, Outline, Overlay, PREFIX, Resolved, TaskType};
use crate::target::no_target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version of PEFT whose files these are.
const PEFT_VERSION: &str = "0.21.2";

/// Fields that every adapter has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Common {
    /// What the adapter is for. With a classifier's task the head is trained beside the method.
    pub task_type: Option<TaskType>,
    /// Where the base comes from, for whoever reads the file. Nothing is opened by it.
    pub base_model_name_or_path: Option<String>,
    /// Modules that are trained whole beside the method, the classification head above all: every parameter of
    /// a module whose path ends in one of these (PEFT's rule: no dot needed before it).
    pub modules_to_save: Option<Vec<String>>,
    /// Fields that this crate has no use for. They are kept, and checked on reading: see [`from_json`](super::from_json).
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Common {
    /// For a classifier whose head is trained as well.
    pub fn classifier() -> Self {
        Self { task_type: Some(TaskType::SeqCls), ..Self::default() }
    }

    /// Names that PEFT adds by task type, whether the model has them or not.
    fn heads(&self) -> &'static [&'static str] {
        match self.task_type {
            Some(TaskType::SeqCls | TaskType::TokenCls) => &["classifier", "score"],
            Some(TaskType::QuestionAns) => &["qa_outputs"],
            _ => &[],
        }
    }

    /// Adds the task's head to `modules_to_save`, and checks that the others are there.
    ///
    /// # Errors
    /// A name that is empty, or that is no module of the model.
    pub fn resolve(&mut self, method: &'static str, outline: &Outline) -> Result<()> {
        for module in self.saved() {
            if module.is_empty() {
                return Err(Error::config(
                    method,
                    "modules_to_save",
                    "has an empty name, the end of every name",
                ));
            }
            let known = outline.params.iter().any(|p| saves(module, p));
            if !known && !self.heads().contains(&module.as_str()) {
                let all = outline.params.iter().flat_map(|p| modules(p));
                return Err(no_target(method, "modules_to_save", module, all));
            }
        }
        let mut modules = self.modules_to_save.take().unwrap_or_default();
        for head in self.heads() {
            if !modules.iter().any(|m| m == head) {
                modules.push((*head).to_owned());
            }
        }
        self.modules_to_save = (!modules.is_empty()).then_some(modules);
        Ok(())
    }

    /// `modules_to_save`, as a list.
    pub fn saved(&self) -> &[String] {
        self.modules_to_save.as_deref().unwrap_or_default()
    }

    /// The overlay of a parameter that is in `modules_to_save`; its key is `prefix` + its name.
    pub fn overlay(&self, prefix: &str, param: &str) -> Option<Overlay> {
        let saved = self.saved().iter().any(|m| saves(m, param));
        saved.then(|| Overlay {
            key: format!("{prefix}{param}"),
            counting: Counting::Adds,
            saved_beside: true,
        })
    }
}

/// Whether `param` belongs to a module whose path ends in `module`.
fn saves(module: &str, param: &str) -> bool {
    modules(param).any(|path| path.ends_with(module))
}

/// The modules that a parameter is in, innermost first.
pub(super) fn modules(param: &str) -> impl Iterator<Item = &str> {
    fn parent(path: &str) -> Option<&str> {
        path.rsplit_once('.').map(|(parent, _)| parent)
    }
    std::iter::successors(parent(param), |path| parent(path))
}

/// A configuration that has an `adapter_config.json`. What it comes to in a model is another type, a [`Method`], which
/// [`PeftConfig::resolved`] puts together with it: a type that is both has no file.
/// [`AsRef`] gives the fields that every adapter has.
pub trait PeftConfig: MethodConfig + AsRef<Common> + Serialize + DeserializeOwned + Clone + 'static {
    /// The file's `peft_type`.
    const TYPE: &'static str;
    /// Fields of PEFT's file that this crate does not have, with their defaults, as JSON: written as they are, and
    /// refused by name when a file has another value.
    const DEFAULTS: &'static str = "{}";
    /// Fields that change no number of an adapter whose tensors are there, as JSON: with the values of which that is true,
    /// or `true` for all of them. They say how training began, say. [`Peft::load`](crate::peft::Peft::load) takes and keeps
    /// them; an adapter that is added fresh may not have them.
    const INERT: &'static str = "{}";
    /// What the names of whole modules start with in the file.
    const PREFIX: &'static str = PREFIX;

    /// The method, with this configuration, by now complete, as what its file says. For [`MethodConfig::resolve`].
    fn resolved<M: Method + 'static>(self, method: impl FnOnce(Arc<Self>) -> M) -> Resolved {
        let config = Arc::new(self);
        Resolved { method: Box::new(method(Arc::clone(&config))), file: Some(config) }
    }
}

impl<C: PeftConfig> FileForm for C {
    fn overlay(&self, param: &str) -> Option<Overlay> {
        self.as_ref().overlay(C::PREFIX, param)
    }

    fn json(&self) -> Result<Map<String, Value>> {
        fields(self)
    }

    fn task(&self) -> Option<TaskType> {
        self.as_ref().task_type
    }
}

/// Fields that describe the file and change no number.
pub(super) const DESCRIPTIVE: &[&str] = &["auto_mapping", "inference_mode", "peft_version", "revision"];

pub(super) fn defaults<C: PeftConfig>() -> Result<Map<String, Value>> {
    serde_json::from_str(C::DEFAULTS).map_err(|e| Error::config(C::TYPE, "DEFAULTS", e))
}

/// What PEFT would write of this configuration: all fields, sorted by name.
pub fn to_json<C: PeftConfig>(config: &C) -> Result<Value> {
    fields(config).map(Value::Object)
}

pub(super) fn fields<C: PeftConfig>(config: &C) -> Result<Map<String, Value>> {
    let Value::Object(own) = serde_json::to_value(config).map_err(|e| Error::config(C::TYPE, "config", e))?
    else {
        return Err(Error::config(C::TYPE, "config", "is not an object"));
    };
    let mut all: BTreeMap<String, Value> = defaults::<C>()?.into_iter().collect();
    all.extend(DESCRIPTIVE.iter().map(|f| ((*f).to_owned(), Value::Null)));
    all.insert("peft_version".into(), PEFT_VERSION.into());
    all.extend(own);
    all.insert("peft_type".into(), C::TYPE.into());
    all.insert("inference_mode".into(), true.into());
    Ok(all.into_iter().collect())
}

/// Takes `modules_to_save` out of a file where it names none: PEFT's files of some methods do not have the field.
pub(super) fn without_modules_to_save(file: &mut Map<String, Value>) {
    if file.get("modules_to_save").is_some_and(Value::is_null) {
        file.shift_remove("modules_to_save");
    }
}

/// Whole modules in prompt-learning files: PEFT wraps the model once and not twice.
pub(super) const WRAPPED_ONCE: &str = "base_model.";

/// A size that a config states must be the model's; one that it leaves open becomes the model's.
pub(super) fn fill(method: &str, field: &str, value: &mut Option<i64>, model: i64) -> Result<()> {
    match *value {
        Some(v) if v != model => Err(Error::config(method, field, format!("is {v}, the model has {model}"))),
        _ => {
            *value = Some(model);
            Ok(())
        }
    }
}

/// For `#[serde(serialize_with)]`: 8.0 is written as 8, as PEFT does where its users wrote 8.
pub(crate) fn whole<S: Serializer>(value: &f64, s: S) -> std::result::Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        s.serialize_i64(*value as i64)
    } else {
        s.serialize_f64(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saves_whole_modules_by_suffix() {
        assert!(saves("classifier", "classifier.weight"));
        assert!(saves("pooler", "bert.pooler.dense.bias"));
        assert!(saves("norm", "layers.0.input_layernorm.weight"));
        assert!(!saves("dense", "bert.pooler.weight"));
    }
}
