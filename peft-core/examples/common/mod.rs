//! Numbers on the command line, and warnings.

use std::fmt::Display;
use std::str::FromStr;

/// A number above 0, for `value_parser`.
pub fn positive<T: FromStr<Err: Display> + PartialOrd + Default + Into<f64> + Copy>(
    text: &str,
) -> Result<T, String> {
    let value: T = text.parse().map_err(|e| format!("{e}"))?;
    let fine = value > T::default() && value.into().is_finite();
    if fine { Ok(value) } else { Err("should be a positive number".into()) }
}

/// Says what was read and is passed over.
pub fn warn(warnings: impl IntoIterator<Item = impl Display>) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}
