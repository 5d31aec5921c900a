//! Numbers as they are written at axes.

use std::ops::Range;

/// Whether a number is a digit times a power of ten.
pub(crate) fn is_round(value: f64) -> bool {
    let mantissa = value / 10f64.powf((value.log10() + 1e-9).floor());
    (mantissa - mantissa.round()).abs() < 1e-6
}

/// Numbers of one axis, all with the same unit and as many decimals as tell them apart.
pub(crate) fn alike(values: &[f64]) -> Vec<String> {
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let step = values.windows(2).map(|w| w[1] - w[0]).fold(largest, f64::min);
    let (unit, suffix) = unit(largest, 1e-3..1e6);
    let decimals = (-(step / unit).log10() - 1e-6).ceil().clamp(0.0, 12.0) as usize;
    values.iter().map(|&v| write(v, unit, decimals, &suffix)).collect()
}

/// A number with up to three digits.
pub(crate) fn short(value: f64) -> String {
    short_within(value, 1e-3..1e3)
}

/// Numbers of a logarithmic axis: all that are below one as powers of ten, or none.
pub(crate) fn decades(values: &[f64]) -> Vec<String> {
    let least = if values.iter().any(|v| *v < 0.999e-3) { 1.0 } else { 1e-3 };
    values.iter().map(|&v| short_within(v, least..1e3)).collect()
}

fn short_within(value: f64, plain: Range<f64>) -> String {
    let (unit, suffix) = unit(value.abs(), plain);
    let digits = 2.0 - ((value / unit).abs().log10() + 1e-9).floor();
    let decimals = if value == 0.0 { 0 } else { digits.clamp(0.0, 12.0) as usize };
    let text = write(value, unit, decimals, "");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    match suffix.strip_prefix('×') {
        Some(power) if text == "1" => power.to_owned(),
        _ => format!("{text}{suffix}"),
    }
}

/// What a number is counted in, unless it is plain enough: thousands, millions, powers of ten.
fn unit(size: f64, plain: Range<f64>) -> (f64, String) {
    let size = size * (1.0 + 1e-9);
    let named = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    if size == 0.0 || plain.contains(&size) {
        return (1.0, String::new());
    }
    match named.iter().find(|(unit, _)| size >= *unit) {
        Some((unit, suffix)) if size < 1e15 => (*unit, (*suffix).to_owned()),
        _ => {
            let power = size.log10().floor();
            (10f64.powf(power), format!("×10{}", raised(power as i32)))
        }
    }
}

fn raised(power: i32) -> String {
    let digit = |c: char| match c {
        '-' => '⁻',
        _ => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][c as usize - '0' as usize],
    };
    power.to_string().chars().map(digit).collect()
}

/// With thousands separators; zero has no unit.
fn write(value: f64, unit: f64, decimals: usize, suffix: &str) -> String {
    let text = format!("{:.decimals$}", (value / unit).abs());
    if text.chars().all(|c| matches!(c, '0' | '.')) {
        return "0".to_owned();
    }
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::from(if value < 0.0 { "−" } else { "" });
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest + suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        let cases = [
            (0.0, "0"),
            (12.345, "12.3"),
            (1234.0, "1.23k"),
            (7e9, "7G"),
            (-0.25, "−0.25"),
            (2e-7, "2×10⁻⁷"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }
}
