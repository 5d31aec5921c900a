//! Numbers and JSON as Python writes them.

use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io::{self, Write};

/// A float as Python's `repr` has it: 1e-05 and 1e+16, and 1.0.
pub(crate) fn float(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 || (1e-4..1e16).contains(&size) || !x.is_finite() {
        return if x.fract() == 0.0 { format!("{x:.1}") } else { x.to_string() };
    }
    let text = format!("{x:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// JSON on lines of its own as the formatter has it, or in one with Python's blanks: `{"a": 1, "b": [2, 3]}`.
pub(crate) struct Python<'a>(pub Option<PrettyFormatter<'a>>);

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
