//! From values to places along an axis, and the numbers written there.

use crate::Axis;
use crate::error::{Error, Result};
use crate::numbers::{alike, decades, is_round};

/// A place along an axis, from 0 to 1, and what is written there.
pub(crate) type Tick = (f64, String);

/// An axis from one value to a larger one, in equal steps or in powers of ten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub log: bool,
    pub from: f64,
    pub to: f64,
}

/// Numbers that a picture can show: not NaN, not infinite, nor so large or small that their differences are.
pub(crate) fn check(value: f64, what: impl Fn() -> String) -> Result<f64> {
    if value == 0.0 || (1e-100..1e100).contains(&value.abs()) {
        return Ok(value);
    }
    Err(Error::data(format!("{} is {value}, which cannot be drawn", what())))
}

impl Axis {
    /// A number that this axis can show.
    pub(crate) fn check(&self, value: f64, what: impl Fn() -> String) -> Result<f64> {
        check(value, &what)?;
        if self.log && value <= 0.0 {
            return Err(Error::data(format!(
                "{} is {value}, and a logarithmic axis starts above zero",
                what()
            )));
        }
        Ok(value)
    }
}

impl Scale {
    /// The range of an axis that was asked for, or else one that holds the values with some air.
    /// `base` is a value that the range has to start from or hold, as zero is for bars.
    pub fn new(axis: &Axis, values: impl IntoIterator<Item = f64>, base: Option<f64>) -> Result<Self> {
        let log = axis.log;
        if let Some((from, to)) = axis.range {
            check(from, || format!("the range of `{}`", axis.label))?;
            check(to, || format!("the range of `{}`", axis.label))?;
            if to - from <= 1e-9 * from.abs().max(to.abs()) || log && from <= 0.0 {
                let kind = if log { "a logarithmic axis" } else { "an axis" };
                return Err(Error::data(format!("`{}`: {kind} cannot go from {from} to {to}", axis.label)));
            }
            return Ok(Scale { log, from, to });
        }
        let values: Vec<f64> = values.into_iter().chain(base.filter(|_| !log)).collect();
        let (low, high) = extent(&values).ok_or_else(|| Error::data("there is nothing to draw"))?;
        let low_base = log && base.is_some();
        Ok(if log { Self::decades(low, high, low_base) } else { Self::linear(low, high) })
    }

    fn linear(low: f64, high: f64) -> Self {
        let size = low.abs().max(high.abs());
        if size == 0.0 {
            return Scale { log: false, from: 0.0, to: 1.0 };
        }
        // Equal values are shown in the middle.
        let air = if high - low <= 1e-9 * size { 0.1 * size } else { 0.05 * (high - low) };
        // Zero stays the end of what does not cross it, and is shown where it is not far.
        let near = 0.3 * size;
        let from = if (0.0..near).contains(&low) { 0.0 } else { low - air };
        let to = if high <= 0.0 && high > -near { 0.0 } else { high + air };
        Scale { log: false, from, to }
    }

    fn decades(low: f64, high: f64, bars: bool) -> Self {
        let (low, high) = (low.log10(), high.log10());
        let air = if high - low < 1e-6 { 0.3 } else { 0.05 * (high - low) };
        // Bars need a length: they start at a power of ten below the least of them.
        let from = if bars { (low - 0.1).floor() } else { low - air };
        Scale { log: true, from: 10f64.powf(from), to: 10f64.powf(high + air) }
    }

    /// A wider range, by a share of it at each end, unless a range was asked for.
    pub fn with_air(self, axis: &Axis, air: f64) -> Self {
        if axis.range.is_some() {
            return self;
        }
        let (from, to) = (self.unit(self.from), self.unit(self.to));
        let (from, to) = (from - air * (to - from), to + air * (to - from));
        let value = |unit: f64| if self.log { 10f64.powf(unit) } else { unit };
        Scale { from: value(from), to: value(to), ..self }
    }

    fn unit(&self, value: f64) -> f64 {
        if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }

    /// The place of a value: 0 at the start, 1 at the end of the axis.
    pub fn at(&self, value: f64) -> f64 {
        let (from, to) = (self.unit(self.from), self.unit(self.to));
        (self.unit(value) - from) / (to - from)
    }

    pub fn has(&self, value: f64) -> bool {
        (-1e-9..=1.0 + 1e-9).contains(&self.at(value))
    }

    /// A value has to be on the axis: a bar or a point beside it would be lost.
    pub fn insist(&self, value: f64, what: impl Fn() -> String) -> Result<()> {
        if self.has(value) {
            return Ok(());
        }
        Err(Error::data(format!(
            "{} is {value}, outside of the axis from {} to {}",
            what(),
            self.from,
            self.to
        )))
    }

    /// At most so many numbers (at least two) along the axis.
    pub fn ticks(&self, most: usize) -> Vec<Tick> {
        let most = most.max(2);
        let values = if self.log { self.log_ticks(most) } else { self.linear_ticks(most) };
        let labels =
            if self.log && values.iter().copied().all(is_round) { decades(&values) } else { alike(&values) };
        values.iter().map(|&v| self.at(v)).zip(labels).collect()
    }

    fn linear_ticks(&self, most: usize) -> Vec<f64> {
        let step = nice((self.to - self.from) / most as f64);
        multiples(self.from, self.to, step)
    }

    fn log_ticks(&self, most: usize) -> Vec<f64> {
        let (low, high) = (self.unit(self.from), self.unit(self.to));
        let decades = multiples(low, high, 1.0);
        if decades.len() >= 3 || decades.len() == 2 && most < 4 {
            let every = decades.len().div_ceil(most);
            let first = decades.iter().position(|d| (*d as i64).rem_euclid(every as i64) == 0).unwrap_or(0);
            return decades.iter().skip(first).step_by(every).map(|&d| 10f64.powi(d as i32)).collect();
        }
        let some = [&[1.0, 2.0, 5.0][..], &[1.0, 3.0]].map(|m| self.mantissas(m));
        match some.into_iter().find(|ticks| (3..=most).contains(&ticks.len())) {
            Some(ticks) => ticks,
            None => self.linear_ticks(most),
        }
    }

    fn mantissas(&self, of: &[f64]) -> Vec<f64> {
        let (low, high) = (self.unit(self.from).floor() as i32, self.unit(self.to).floor() as i32);
        let all = (low..=high).flat_map(|decade| of.iter().map(move |m| m * 10f64.powi(decade)));
        all.filter(|&v| self.has(v)).collect()
    }

    /// The places between powers of ten, for a fine grid.
    pub fn fine(&self) -> Vec<f64> {
        if !self.log || self.to / self.from > 1e7 {
            return Vec::new();
        }
        let tenths: Vec<f64> = (2..10).map(f64::from).collect();
        self.mantissas(&tenths).into_iter().map(|v| self.at(v)).collect()
    }
}

/// The least and the largest.
pub(crate) fn extent(values: &[f64]) -> Option<(f64, f64)> {
    let low = values.iter().copied().reduce(f64::min)?;
    Some((low, values.iter().copied().reduce(f64::max)?))
}

/// The multiples of a step between two values.
fn multiples(from: f64, to: f64, step: f64) -> Vec<f64> {
    let (first, last) = ((from / step - 1e-9).ceil() as i64, (to / step + 1e-9).floor() as i64);
    // Divided, not multiplied, by whole numbers: 3 / 10 is 0.3, 3 · 0.1 is not.
    let whole = (1.0 / step).round();
    let at = |i: i64| if step < 1.0 { i as f64 / whole } else { i as f64 * step };
    (first..=last).map(at).collect()
}

/// 1, 2 or 5 times a power of ten, not less than this.
pub(crate) fn nice(step: f64) -> f64 {
    let ten = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|m| m * ten).find(|&s| s >= step * (1.0 - 1e-9)).unwrap_or(10.0 * ten)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(log: bool, from: f64, to: f64, most: usize) -> Vec<String> {
        Scale { log, from, to }.ticks(most).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn numbers_are_short_and_alike() {
        assert_eq!(labels(false, 0.0, 1.0, 5), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(false, -2.1, 2.1, 5), ["−2", "−1", "0", "1", "2"]);
        assert_eq!(labels(false, 0.0, 21_000.0, 5), ["0", "5,000", "10,000", "15,000", "20,000"]);
        assert_eq!(labels(false, 0.0, 7e9, 4), ["0", "2G", "4G", "6G"]);
        assert_eq!(labels(false, 0.0, 2.1e6, 5), ["0", "0.5M", "1.0M", "1.5M", "2.0M"]);
        assert_eq!(labels(false, 0.0, 2e-5, 4), ["0", "0.5×10⁻⁵", "1.0×10⁻⁵", "1.5×10⁻⁵", "2.0×10⁻⁵"]);
        assert_eq!(labels(false, 0.0, 1e20, 2), ["0", "0.5×10²⁰", "1.0×10²⁰"]);
    }

    #[test]
    fn powers_of_ten() {
        assert_eq!(labels(true, 0.001, 1e7, 11)[..5], ["0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(labels(true, 900.0, 2e6, 8), ["1k", "10k", "100k", "1M"]);
        assert_eq!(labels(true, 1e-5, 1e-3, 8), ["10⁻⁵", "10⁻⁴", "10⁻³"]);
        assert_eq!(labels(true, 15.0, 250.0, 8), ["20", "50", "100", "200"]);
        assert_eq!(labels(true, 21.0, 34.0, 4), ["25", "30"]);
        assert_eq!(labels(true, 1e-20, 1e20, 5).len(), 5);
    }
}
