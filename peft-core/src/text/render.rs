//! Jinja as transformers sets it up for chat templates, and values as Python prints them.

use crate::io::python::{Python, float};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use std::fmt::Write;

/// The filter that stands for `generation` in templates, and its tags.
const FILTER: &str = "marked_as_generated";
pub(super) const MARKS: [&str; 2] = ["filter marked_as_generated", "endfilter"];

/// Around what is marked: of the code points that Unicode keeps for a program's own use, so that no text has them.
pub(super) const OPEN: char = '\u{fdd0}';
pub(super) const CLOSE: char = '\u{fdd1}';

/// What one chat may cost, in instructions of the template, or in 64 bytes each of text and lists that it makes: a thousand
/// times what a long chat needs. A template that never ends or wants all memory is an error then.
const FUEL: u64 = 2_000_000;
/// The longest template, in bytes; the longest there are have some tens of thousands.
const LONGEST: usize = 128 << 10;
/// Room for what a template of that length may nest: its parser descends for every `not`, `-` and `else` of an expression.
const STACK: usize = 512 << 20;
/// How much of a value is shown that is no text.
const SHOWN: usize = 200;
/// The widest indent of `tojson`.
const INDENT: usize = 64;

/// Adds a template. On a stack of its own, of which no more is there than is used.
pub(super) fn add(environment: &mut Environment<'static>, name: String, source: String) -> Result<(), Error> {
    if source.len() > LONGEST {
        return Err(invalid(format!("it has {} bytes, and more than {LONGEST} are not read", source.len())));
    }
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK);
        let parser = parser.spawn_scoped(scope, || environment.add_template_owned(name, source));
        let parser = parser.map_err(|e| invalid(format!("there is no thread to read it: {e}")))?;
        parser.join().unwrap_or_else(|_| Err(invalid("it cannot be read")))
    })
}

/// The settings, filters and functions that templates count on.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(print);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", to_json);
    environment.add_filter(FILTER, marked);
    environment
        .add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(invalid(message)) });
    environment.add_function("strftime_now", now);
    Ok(environment)
}

/// A text between marks.
fn marked(text: String) -> String {
    format!("{OPEN}{text}{CLOSE}")
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Today's date in local time, as `datetime.now().strftime(format)` of Python.
fn now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(&format, &jiff::ZonedDateTime::now())
        .map_err(|e| invalid(format!("strftime_now: {e}")))
}

/// What Python prints. Lists and objects have a form there that no model should have seen.
fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::Undefined => return Ok(()),
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(x) => float(x),
            Err(_) => value.to_string(),
        },
        ValueKind::String | ValueKind::Number => value.to_string(),
        kind => {
            let mut shown = Beginning(String::new());
            let _ = write!(shown, "{value}"); // it fails where enough is written
            return Err(invalid(format!("it prints a {kind}, where it expects a string: {}", shown.0)));
        }
    };
    out.write_str(&text).map_err(Error::from)
}

/// The beginning of a text of any length.
struct Beginning(String);

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = SHOWN.saturating_sub(self.0.chars().count());
        self.0.extend(text.chars().take(room));
        if self.0.chars().count() < SHOWN { Ok(()) } else { Err(std::fmt::Error) }
    }
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)` of Python.
fn to_json(value: Value, arguments: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    if arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or_default() {
        return Err(invalid("tojson with ensure_ascii is not supported"));
    }
    arguments.assert_all_used()?;
    if let Some(wide) = indent.filter(|n| *n > INDENT) {
        return Err(invalid(format!("tojson with an indent of {wide}, at most {INDENT} are supported")));
    }
    let json = serde_json::to_value(&value).map_err(|e| invalid(e.to_string()))?;
    let mut out = Vec::new();
    let written = match indent {
        None => json.serialize(&mut Serializer::with_formatter(&mut out, Python(None))),
        Some(n) => {
            let indent = " ".repeat(n);
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            json.serialize(&mut Serializer::with_formatter(&mut out, Python(Some(pretty))))
        }
    };
    written.map_err(|e| invalid(e.to_string()))?;
    String::from_utf8(out).map_err(|e| invalid(e.to_string()))
}
