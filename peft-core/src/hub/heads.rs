//! Which head a directory's model has, and what is said where it is another one.

use crate::error::{Error, Result};
use crate::hub::shards::WeightFiles;
use crate::io::adapter::CLASSES;
use crate::models::hub_model::{Head, HubModel};
use crate::seam::Dims;
use serde_json::Value;

/// The Hub's class that `config.json` names.
fn architecture(json: &Value) -> Option<&str> {
    json.get("architectures")?.get(0)?.as_str()
}

/// Heads of other tasks, some of which are called as ours are and mean something else.
const OTHERS: &[(&str, &str)] = &[
    ("ForSequenceClassification", "for classes of texts"),
    ("ForTokenClassification", "for classes of tokens"),
    ("ForMultipleChoice", "for choices"),
    ("ForQuestionAnswering", "for answers in texts"),
];

/// Refuses a head for no classes, which is what an adapter without names of classes asks for.
pub(super) fn check_number(head: Head, place: &str) -> Result<()> {
    let Some(number) = head.classes().filter(|number| *number < 1) else { return Ok(()) };
    let message = format!(
        "{number} classes are asked for, expected a positive number: Options::named needs the names of all, as an \
         adapter has them in {CLASSES}; one that lacks this file has none"
    );
    Err(Error::config(place, "num_labels", message))
}

/// Refuses classes that are asked of a model which has none.
pub(super) fn check_asked(head: Head, dims: &Dims, classes: &[String]) -> Result<()> {
    if !dims.causal() || head == Head::Stored && classes.is_empty() {
        return Ok(());
    }
    let what = match (head.classes(), classes.len()) {
        (Some(number), 0) => format!("{number} classes"),
        (_, named) => format!("{named} names for classes"),
    };
    let model = dims.model();
    let message =
        format!("{what} are asked of {model}, whose head is for next tokens: it is opened with Head::Stored");
    Err(Error::Input(message))
}

/// Refuses a stored head of another task; `has` says which parameters the file has.
pub(super) fn check(
    head: Head,
    model: &dyn HubModel,
    (json, place): (&Value, &str),
    has: impl Fn(&str) -> bool,
) -> Result<()> {
    let dims = model.dims();
    let read = dims.causal()
        || dims.head_weight().is_some_and(|weight| has(&weight)) && !matches!(head, Head::Fresh(_));
    let Some(said) = architecture(json).filter(|_| read) else { return Ok(()) };
    let other = OTHERS.iter().find(|(task, _)| said.ends_with(task) && !model.class().ends_with(task));
    let Some((_, purpose)) = other else { return Ok(()) };
    let (own, hint) = match dims.causal() {
        true => ("for next tokens", ""),
        false => ("for classes of texts", "; a fresh one can be asked for"),
    };
    let message =
        format!("says {said}, with a head {purpose}; {} is read here, with one {own}{hint}", model.class());
    Err(Error::config(place, "architectures", message))
}

/// Says more where the file and the configuration do not fit: which head there is, what the index promised.
pub(super) fn explain(error: Error, model: &dyn HubModel, json: &Value, files: &WeightFiles) -> Error {
    let dims = model.dims();
    let of_head = |name: &str| {
        let leaf = dims.head.as_deref().and_then(|head| name.strip_prefix(head));
        leaf.is_some_and(|leaf| leaf.starts_with('.'))
    };
    match error {
        Error::Missing { place, name, expected, hint } => {
            let absent = files.absent.iter().find(|(listed, _)| model.rename(listed).as_ref() == Some(&name));
            let said = architecture(json).filter(|said| *said != model.class());
            let more = match (absent, said) {
                (Some((_, shard)), _) => {
                    format!("; the index has it in {shard}, and no shard has it: fetch that file again")
                }
                (None, said) if of_head(&name) => {
                    let is = said.map(|said| format!("config.json says {said}, ")).unwrap_or_default();
                    let what = if dims.causal() { "output layer" } else { "head for classes" };
                    let ask = if dims.causal() { "" } else { ": ask for a fresh one with their number" };
                    format!("; {is}the file has no {what}, as {} has it{ask}", model.class())
                }
                (None, Some(said)) => {
                    let (class, kind) = (model.class(), &dims.model_type);
                    format!("; config.json says {said}, and its model_type `{kind}` stands for {class}")
                }
                (None, None) => String::new(),
            };
            Error::Missing { place, name, expected, hint: format!("{hint}{more}") }
        }
        Error::Shape { place, name, expected, found, hint }
            if hint.is_empty() && !dims.causal() && of_head(&name) =>
        {
            let hint =
                "; config.json says how many classes there are (num_labels, or the entries of id2label)"
                    .to_owned();
            Error::Shape { place, name, expected, found, hint }
        }
        other => other,
    }
}
