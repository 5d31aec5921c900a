//! What a setting should be. Every room says it in the same words, with the field and the value.

use crate::error::{Error, Result};
use std::fmt::Display;

/// An error that says what the field should be, unless it is that.
pub(crate) fn should_be(
    is: bool,
    what: impl Display,
    place: &str,
    field: &str,
    value: impl Display,
) -> Result<()> {
    if is {
        return Ok(());
    }
    Err(Error::config(place, field, format!("should be {what}, is {value}")))
}

/// A size.
pub(crate) fn positive(place: &str, field: &str, n: i64) -> Result<()> {
    should_be(n > 0, "a positive integer", place, field, n)
}

/// A factor, a rate.
pub(crate) fn above_zero(place: &str, field: &str, x: f64) -> Result<()> {
    should_be(x > 0.0 && x.is_finite(), "a positive number", place, field, x)
}

/// A rate or a weight that may be 0: below, training would run uphill.
pub(crate) fn not_negative(place: &str, field: &str, x: f64) -> Result<()> {
    should_be(x >= 0.0 && x.is_finite(), "0 or a positive number", place, field, x)
}

pub(crate) fn finite(place: &str, field: &str, x: f64) -> Result<()> {
    should_be(x.is_finite(), "finite", place, field, x)
}

/// A probability of dropping something, which must leave something; a share that stays of a mean.
pub(crate) fn share(place: &str, field: &str, p: f64) -> Result<()> {
    should_be((0.0..1.0).contains(&p), "in [0, 1)", place, field, p)
}

/// A share that is kept, which must be something.
pub(crate) fn kept(place: &str, field: &str, p: f64) -> Result<()> {
    should_be(p > 0.0 && p <= 1.0, "in (0, 1]", place, field, p)
}
