//! Jinja as transformers sets it up for chat templates, and values as Python prints them.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use std::io::{self, Write};

/// The settings, filters and functions that templates count on.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(print);
    environment.add_filter("tojson", to_json);
    environment
        .add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(invalid(message)) });
    environment.add_function("strftime_now", now);
    Ok(environment)
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
        kind => return Err(invalid(format!("it prints a {kind}, where it expects a string: {value}"))),
    };
    out.write_str(&text).map_err(Error::from)
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)` of Python.
fn to_json(value: Value, arguments: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    if arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or_default() {
        return Err(invalid("tojson with ensure_ascii is not supported"));
    }
    arguments.assert_all_used()?;
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

/// A float as Python's `repr` has it: 1e-05 and 1e+16, and 1.0.
fn float(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 || (1e-4..1e16).contains(&size) || !x.is_finite() {
        return if x.fract() == 0.0 { format!("{x:.1}") } else { x.to_string() };
    }
    let text = format!("{x:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// JSON with Python's blanks: `{"a": 1, "b": [2, 3]}`.
struct Python<'a>(Option<PrettyFormatter<'a>>);

/// Hands a call on to the formatter that breaks lines, or else to what stands there.
macro_rules! either {
    ($($name:ident($($arg:ident: $Type:ty)?), $compact:expr;)*) => {
        $(fn $name<W: ?Sized + Write>(&mut self, w: &mut W $(, $arg: $Type)?) -> io::Result<()> {
            match &mut self.0 {
                Some(pretty) => pretty.$name(w $(, $arg)?),
                None => {
                    let compact: fn(&mut W $(, $Type)?) -> io::Result<()> = $compact;
                    compact(w $(, $arg)?)
                }
            }
        })*
    };
}

impl Formatter for Python<'_> {
    fn write_f64<W: ?Sized + Write>(&mut self, w: &mut W, x: f64) -> io::Result<()> {
        w.write_all(float(x).as_bytes())
    }

    either! {
        begin_array(), |w| CompactFormatter.begin_array(w);
        end_array(), |w| CompactFormatter.end_array(w);
        begin_array_value(first: bool), |w, first| if first { Ok(()) } else { w.write_all(b", ") };
        end_array_value(), |w| CompactFormatter.end_array_value(w);
        begin_object(), |w| CompactFormatter.begin_object(w);
        end_object(), |w| CompactFormatter.end_object(w);
        begin_object_key(first: bool), |w, first| if first { Ok(()) } else { w.write_all(b", ") };
        begin_object_value(), |w| w.write_all(b": ");
        end_object_value(), |w| CompactFormatter.end_object_value(w);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_pythons() {
        let all = [0.0, 1.0, -2.5, 0.1, 1e-4, 1e-5, 1.5e-7, 1e15, 1e16, -1.25e300];
        let expected = [
            "0.0",
            "1.0",
            "-2.5",
            "0.1",
            "0.0001",
            "1e-05",
            "1.5e-07",
            "1000000000000000.0",
            "1e+16",
            "-1.25e+300",
        ];
        assert_eq!(all.map(float), expected);
    }
}
