//! Amounts of memory: `24GB`, `500MiB`, `24` (GB).

use anyhow::{Context, Result, ensure};
use std::str::FromStr;

/// An amount of memory, as it is given: a number with a unit, or of GB without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub i64);

const UNITS: &[(&str, f64)] = &[
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("tib", 1_099_511_627_776.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("g", 1e9),
    ("b", 1.0),
];

impl FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.trim().to_ascii_lowercase();
        let unit = UNITS.iter().find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?, *bytes)));
        let (number, unit) = unit.unwrap_or((&lower, 1e9));
        let number: f64 = number.trim().parse().context("expected an amount like 24GB or 500MiB")?;
        let bytes = number * unit;
        ensure!((1.0..9e18).contains(&bytes), "should be a positive amount");
        Ok(Self(bytes as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let read = |text: &str| text.parse::<Bytes>().map(|b| b.0).ok();
        assert_eq!(
            ["24", "24GB", "24 gb", "1.5MiB", "7b", "3g"].map(read),
            [
                Some(24_000_000_000),
                Some(24_000_000_000),
                Some(24_000_000_000),
                Some(1_572_864),
                Some(7),
                Some(3_000_000_000)
            ]
        );
        assert_eq!(["", "GB", "-1GB", "0", "nan", "inf", "1e30GB"].map(read), [None; 7]);
    }
}
