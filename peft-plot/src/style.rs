//! Colours, the font, and how wide a text is.

use crate::error::{Error, Result};
use plotters::style::{FontStyle, IntoFont, RGBColor, register_font};
use std::sync::OnceLock;

pub(crate) const FONT: &[u8] = include_bytes!("../font/DejaVuSans.ttf");
/// The font's name, and what a viewer without it takes.
pub(crate) const FAMILY: &str = "DejaVu Sans, sans-serif";

pub(crate) const FIGURE_TITLE: f64 = 19.0;
pub(crate) const PANEL_TITLE: f64 = 15.0;
pub(crate) const LABEL: f64 = 12.5;
pub(crate) const SMALL: f64 = 11.0;

pub(crate) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(crate) const PALE_INK: RGBColor = RGBColor(0x55, 0x55, 0x55);
pub(crate) const AXIS: RGBColor = RGBColor(0x77, 0x77, 0x77);
pub(crate) const GRID: RGBColor = RGBColor(0xE2, 0xE2, 0xE2);
pub(crate) const FINE_GRID: RGBColor = RGBColor(0xF1, 0xF1, 0xF1);

/// Okabe and Ito's colours, those with the most contrast to white first; grey for their yellow, which is hard to see
/// on it.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xB2), // blue
    RGBColor(0xD5, 0x5E, 0x00), // vermilion
    RGBColor(0x00, 0x9E, 0x73), // bluish green
    RGBColor(0xCC, 0x79, 0xA7), // reddish purple
    RGBColor(0xE6, 0x9F, 0x00), // orange
    RGBColor(0x56, 0xB4, 0xE9), // sky blue
    RGBColor(0x00, 0x00, 0x00), // black
    RGBColor(0x99, 0x99, 0x99), // grey
];

/// Lengths of dashes and gaps in turn.
const DASHES: [&[f64]; 8] = [
    &[],
    &[8.0, 4.0],
    &[2.0, 3.0],
    &[9.0, 3.0, 2.0, 3.0],
    &[14.0, 4.0],
    &[5.0, 2.5],
    &[9.0, 3.0, 2.0, 3.0, 2.0, 3.0],
    &[3.5, 5.0],
];

/// The shape of a curve's points.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Nabla,
    Cross,
    Plus,
    Ring,
}

const MARKERS: [Marker; 8] = [
    Marker::Circle,
    Marker::Square,
    Marker::Triangle,
    Marker::Diamond,
    Marker::Nabla,
    Marker::Cross,
    Marker::Plus,
    Marker::Ring,
];

/// How a series is told from the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub colour: RGBColor,
    pub dash: &'static [f64],
    pub marker: Marker,
}

/// The look of a curve that stays behind the others.
pub(crate) const FAINT: Look = Look { colour: RGBColor(0xB8, 0xB8, 0xB8), dash: &[], marker: Marker::Circle };

/// The look of the series number `index`; after eight, colours come again with other dashes and markers.
pub(crate) fn look(index: usize) -> Look {
    let turn = index + index / PALETTE.len();
    Look {
        colour: PALETTE[index % PALETTE.len()],
        dash: DASHES[turn % DASHES.len()],
        marker: MARKERS[turn % MARKERS.len()],
    }
}

/// Makes the font known to plotters.
pub(crate) fn load_font() -> Result<()> {
    static LOADED: OnceLock<bool> = OnceLock::new();
    match LOADED.get_or_init(|| register_font(FAMILY, FontStyle::Normal, FONT).is_ok()) {
        true => Ok(()),
        false => Err(Error::draw("the font of this crate cannot be read")),
    }
}

/// How much space a line takes.
pub(crate) fn line_height(size: f64) -> f64 {
    size * 1.25
}

/// The width of a line of text. Plotters measures for a font of a *height*; ascent and descent of this one are
/// 1901 + 483 of 2048 units.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    let measured = load_font().ok().and_then(|()| (FAMILY, 1000).into_font().layout_box(text).ok());
    // Nothing is drawn without the font, so that what is guessed here is never seen.
    let em = measured.map_or(0.7 * text.chars().count() as f64, |(_, (right, _))| f64::from(right) / 1000.0);
    em * size * 2384.0 / 2048.0
}

/// The widest of some lines.
pub(crate) fn widest<S: AsRef<str>>(lines: impl IntoIterator<Item = S>, size: f64) -> f64 {
    lines.into_iter().map(|line| width(line.as_ref(), size)).fold(0.0, f64::max)
}

/// The width of the longest word of a text; one that is longer than a line should be is broken in any case.
pub(crate) fn longest_word(text: &str, size: f64) -> f64 {
    widest(text.split_whitespace(), size).min(300.0)
}

/// Breaks a text into lines of at most a width: between words, and within a word that is longer than a line.
pub(crate) fn wrap(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if width(&longer, size) <= most {
                line = longer;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for letter in word.chars() {
                line.push(letter);
                if width(&line, size) > most && line.chars().count() > 1 {
                    line.pop();
                    lines.push(std::mem::replace(&mut line, letter.to_string()));
                }
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}
