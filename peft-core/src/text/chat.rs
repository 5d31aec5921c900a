//! A model's chat template: from messages to the text that it was trained with.

use crate::error::{Error, Result};
use crate::io;
use crate::text::render::{MARKS, add, environment};
use crate::text::tokenizer::SPECIAL_TOKENS;
use minijinja::value::Serde;
use minijinja::{Environment, context};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Where a tokenizer's settings are.
pub(super) const CONFIG: &str = "tokenizer_config.json";
const FILE: &str = "chat_template.jinja";
const DEFAULT: &str = "default";
/// The template for chats with tools, where there is one of its own.
const TOOL_USE: &str = "tool_use";
/// How long a chat may take, a thousand times what it does.
const LONGEST: Duration = Duration::from_secs(2);
/// What the name of a template's copy ends with whose marks are seen.
const MARKED: &str = " with marks";

/// The chat template of a model directory, rendered as `apply_chat_template` of transformers does.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    path: PathBuf,
    special: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja` of a model directory, or `chat_template` in its `tokenizer_config.json` or
    /// `chat_template.json`; `None` where there is none.
    ///
    /// # Errors
    /// A file that is malformed, a template that is no Jinja, one that reads a special token which `tokenizer_config.json`
    /// does not name.
    pub fn open(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let dir = dir.as_ref();
        let config = json(&dir.join(CONFIG))?;
        let Some((path, sources)) = sources(dir, &config)? else { return Ok(None) };
        let mut special = BTreeMap::new();
        let mut named = json(&dir.join("special_tokens_map.json"))?;
        named.extend(config);
        for name in SPECIAL_TOKENS {
            if let Some(token) =
                named.get(name).and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str()))
            {
                special.insert(name.to_owned(), token.to_owned());
            } else if !named.contains_key(name) && sources.values().any(|source| source.contains(name)) {
                // transformers knows it from the tokenizer's class.
                let message = format!(
                    "the chat template reads it, and it is not there: add it to {CONFIG} (null for none)"
                );
                return Err(Error::config(dir.join(CONFIG).display(), name, message));
            }
        }
        let mut environment = environment().map_err(|e| broken(&path, &e))?;
        for (name, source) in sources {
            let plain = generation(&source, ["if true", "endif"]);
            // Where there are no marks the two are the same.
            let marked = generation(&source, MARKS);
            if marked != plain {
                add(&mut environment, format!("{name}{MARKED}"), marked).map_err(|e| broken(&path, &e))?;
            }
            add(&mut environment, name, plain).map_err(|e| broken(&path, &e))?;
        }
        Ok(Some(Self { environment: Arc::new(environment), path, special }))
    }

    /// The text of a chat; with `generate`, up to where the assistant's next answer begins. `tools` are JSON schemas.
    ///
    /// # Errors
    /// What the template refuses (roles that do not alternate, say), and what Python would print in a way of its own.
    pub fn render(&self, messages: &[Value], tools: Option<&Value>, generate: bool) -> Result<String> {
        self.rendered(self.name(tools).to_owned(), messages, tools, generate)
    }

    /// The text of a chat with marks around what the assistant writes; `None` for a template that has none.
    pub(super) fn marked(&self, messages: &[Value], tools: Option<&Value>) -> Result<Option<String>> {
        let name = format!("{}{MARKED}", self.name(tools));
        match self.environment.get_template(&name) {
            Ok(_) => self.rendered(name, messages, tools, false).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The name of the template for a chat with these tools.
    fn name(&self, tools: Option<&Value>) -> &'static str {
        let own = tools.is_some() && self.environment.get_template(TOOL_USE).is_ok();
        if own { TOOL_USE } else { DEFAULT }
    }

    /// Renders in a thread of its own, for so long: a template's instructions are counted, but what a list does that is joined
    /// with itself again and again is none of them.
    fn rendered(
        &self,
        name: String,
        messages: &[Value],
        tools: Option<&Value>,
        generate: bool,
    ) -> Result<String> {
        let messages: Vec<Value> = messages.iter().map(plain).collect();
        let (environment, special, tools) =
            (Arc::clone(&self.environment), self.special.clone(), tools.cloned());
        let (done, result) = mpsc::channel();
        let render = move || {
            let context = context! {
                messages => Serde(messages),
                tools => Serde(tools),
                documents => (),
                add_generation_prompt => generate,
                ..Serde(special)
            };
            let text = environment.get_template(&name).and_then(|template| template.render(context));
            // Nobody listens any more where it took too long.
            let _ = done.send(text.map_err(|e| e.to_string()));
        };
        thread::Builder::new().spawn(render).map_err(|e| Error::file(&self.path, e))?;
        let said = match result.recv_timeout(LONGEST) {
            Ok(Ok(text)) => return Ok(text),
            Ok(Err(said)) => said,
            Err(RecvTimeoutError::Timeout) => {
                format!("a chat takes it more than {} s: it does not end", LONGEST.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => "it cannot be rendered".to_owned(),
        };
        Err(Error::format(&self.path, format!("chat template: {said}")))
    }
}

fn broken(path: &Path, error: &minijinja::Error) -> Error {
    Error::format(path, format!("chat template: {error}"))
}

/// The fields of a file that need not be there.
fn json(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    match io::read_json(path)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::format(path, "is not an object")),
    }
}

/// The templates by name, and the file that the default one is in.
fn sources(dir: &Path, config: &Map<String, Value>) -> Result<Option<(PathBuf, BTreeMap<String, String>)>> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Error::file(path, e));
    let path = dir.join(FILE);
    if path.exists() {
        let mut sources = BTreeMap::from([(DEFAULT.to_owned(), read(&path)?)]);
        let more = dir.join("additional_chat_templates").join(format!("{TOOL_USE}.jinja"));
        if more.exists() {
            sources.insert(TOOL_USE.to_owned(), read(&more)?);
        }
        return Ok(Some((path, sources)));
    }
    let other = dir.join("chat_template.json");
    let (path, found) = match config.get("chat_template") {
        Some(found) => (dir.join(CONFIG), Some(found.clone())),
        None => (other.clone(), json(&other)?.remove("chat_template")),
    };
    let wrong =
        || Error::config(path.display(), "chat_template", "is no template, nor a list with a `default` one");
    let sources = match found {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(source)) => BTreeMap::from([(DEFAULT.to_owned(), source)]),
        Some(Value::Array(all)) => {
            let one = |t: &Value| {
                Some((t.get("name")?.as_str()?.to_owned(), t.get("template")?.as_str()?.to_owned()))
            };
            all.iter().map(one).collect::<Option<BTreeMap<_, _>>>().ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    if sources.contains_key(DEFAULT) { Ok(Some((path, sources))) } else { Err(wrong()) }
}

/// A template with other tags for `generation` and `endgeneration`, which mark what the assistant writes and print nothing
/// of their own.
fn generation(source: &str, [begin, end]: [&str; 2]) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        rest = after;
        let Some((tag, after)) = rest.split_once("%}") else { break };
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let instead = match word {
            "generation" => begin,
            "endgeneration" => end,
            _ => continue,
        };
        out.push_str(&tag.replace(word, instead));
        out.push_str("%}");
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A message as transformers hands it to a template: without what is null, and its reasoning under every name.
fn plain(message: &Value) -> Value {
    let Value::Object(fields) = message else { return message.clone() };
    let mut fields: Map<String, Value> =
        fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    let reasoning =
        ["reasoning_content", "thinking", "reasoning"].iter().find_map(|name| fields.get(*name)).cloned();
    if let Some(reasoning) = reasoning {
        fields.entry("thinking").or_insert_with(|| reasoning.clone());
        fields.insert("reasoning_content".into(), reasoning);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_what_is_generated_print_nothing() {
        let marked = "{%- if x -%}{%- generation %}a{% endgeneration -%}{% endif %}{{ '{%' }}";
        assert_eq!(
            generation(marked, ["if true", "endif"]),
            "{%- if x -%}{%- if true %}a{% endif -%}{% endif %}{{ '{%' }}"
        );
    }
}
