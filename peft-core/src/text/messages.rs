//! The messages of a chat, and its tools.

use crate::error::Result;
use crate::text::records::{Record, brief};
use crate::warning::Warning;
use serde_json::{Map, Value};
use std::path::Path;

/// The tools of a chat; tables have them as a string of JSON.
pub(super) fn tools(record: &Record) -> Result<Option<Value>> {
    let tools = match record.get("tools") {
        Some(Value::String(json)) => serde_json::from_str(json).unwrap_or(Value::Null),
        Some(tools) => tools.clone(),
        None => return Ok(None),
    };
    let schemas = tools.as_array().is_some_and(|all| all.iter().all(Value::is_object));
    if schemas { Ok(Some(tools)) } else { Err(record.wrong("`tools` is not a list of JSON schemas")) }
}

/// The messages of a field, with `from` and `value` for `role` and `content` where that is `sharegpt`.
pub(super) fn messages(record: &Record, field: &str, sharegpt: bool) -> Result<Vec<Value>> {
    let all = list(record, field).filter(|all| !all.is_empty());
    let all = all.ok_or_else(|| record.wrong(format!("`{field}` is not a list of messages")))?;
    (1..)
        .zip(&all)
        .map(|(number, m)| message(record, &format!("message {number} of `{field}`"), m, sharegpt))
        .collect()
}

/// A list of messages; tables have it as a string of JSON.
fn list(record: &Record, field: &str) -> Option<Vec<Value>> {
    match record.get(field)? {
        Value::String(json) => serde_json::from_str(json).ok(),
        other => other.as_array().cloned(),
    }
}

/// Marks of messages that are not to be learned, as OpenAI's files have them and others.
const MARKS: &[&str] = &["weight", "train"];

/// The marks that messages of these rows have. Nothing is done about them.
pub(super) fn marks(path: &Path, records: &[Record], field: &str) -> Vec<Warning> {
    let marked = |mark: &&&str| {
        let has = |message: Value| message.get(**mark).is_some_and(|v| !v.is_null());
        records.iter().filter_map(|record| list(record, field)).flatten().any(has)
    };
    let message = "of messages is not read: it does not count for what is learned of a chat";
    MARKS.iter().filter(marked).map(|mark| Warning::new(path.display(), mark, message)).collect()
}

fn message(record: &Record, place: &str, message: &Value, sharegpt: bool) -> Result<Value> {
    let wrong = |what: String| Err(record.wrong(format!("{place}: {what}")));
    let Value::Object(fields) = message else {
        return wrong(format!("{} is not an object", brief(&message.to_string())));
    };
    // Files with OpenAI's names in `conversations` are as common.
    let sharegpt = sharegpt && !fields.contains_key("role");
    let (who, what) = if sharegpt { ("from", "value") } else { ("role", "content") };
    let Some(Value::String(role)) = fields.get(who) else {
        return wrong(format!("no `{who}` that is a string"));
    };
    let content = fields.get(what).unwrap_or(&Value::Null);
    match content {
        Value::String(_) => {}
        Value::Array(parts) => {
            let text = |part: &&Value| {
                part.get("type").is_some_and(|kind| kind == "text")
                    && part.get("text").is_some_and(Value::is_string)
            };
            if let Some(other) = parts.iter().find(|part| !text(part)) {
                return wrong(format!(
                    "`{what}` has a part {}: only text is supported",
                    brief(&other.to_string())
                ));
            }
        }
        Value::Null if fields.get("tool_calls").is_some_and(Value::is_array) => {}
        other => return wrong(format!("`{what}` is {}, expected a string", brief(&other.to_string()))),
    }
    if !sharegpt {
        return Ok(message.clone());
    }
    let role = match role.as_str() {
        "human" | "user" => "user",
        "gpt" | "assistant" => "assistant",
        "system" => "system",
        other => return wrong(format!("`from` is `{other}`, expected system, human or gpt")),
    };
    Ok(Value::Object(Map::from_iter([
        ("role".to_owned(), role.into()),
        ("content".to_owned(), content.clone()),
    ])))
}
