//! Axes, their words and grids: what the kinds of panels share.

use crate::Axis;
use crate::canvas::{At, Canvas, Rect, Side};
use crate::error::Result;
use crate::scale::{Scale, Tick};
use crate::style::{AXIS, FINE_GRID, GRID, INK, LABEL, PALE_INK, SMALL, line_height, widest, width, wrap};

/// The area of the data, and both scales.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub area: Rect,
    pub x: Scale,
    pub y: Scale,
}

impl Frame {
    pub fn at(&self, (x, y): (f64, f64)) -> At {
        (self.area.left + self.x.at(x) * self.area.width(), self.height_of(y))
    }

    pub fn height_of(&self, y: f64) -> f64 {
        height_of(self.area, &self.y, y)
    }
}

pub(crate) fn height_of(area: Rect, scale: &Scale, y: f64) -> f64 {
    area.bottom - scale.at(y) * area.height()
}

/// The longest line of an upright label beside a plot of the usual height.
pub(crate) const UPRIGHT: f64 = 345.0;

/// How much room the numbers and the label of an upright axis need; `high` is the longest line of the label.
pub(crate) fn room_left(label: &str, ticks: &[Tick], high: f64) -> f64 {
    let lines = wrap(label, LABEL, high).len() as f64;
    widest(ticks.iter().map(|t| &t.1), SMALL)
        + 8.0
        + lines * line_height(LABEL)
        + if lines > 0.0 { 6.0 } else { 0.0 }
}

/// How much room the label below a plot needs.
pub(crate) fn room_of_label(label: &str, width: f64) -> f64 {
    let lines = wrap(label, LABEL, width).len() as f64;
    lines * line_height(LABEL) + if lines > 0.0 { 4.0 } else { 0.0 }
}

/// The numbers below a plot and their air.
pub(crate) const NUMBERS: f64 = 7.0 + SMALL * 1.25;

/// As many numbers as there is room for side by side.
pub(crate) fn ticks_across(scale: &Scale, room: f64) -> Vec<Tick> {
    let fits = |ticks: &[Tick]| {
        ticks.windows(2).all(|two| {
            let half = (width(&two[0].1, SMALL) + width(&two[1].1, SMALL)) / 2.0;
            (two[1].0 - two[0].0) * room >= half + 12.0
        })
    };
    (2..=8).rev().map(|most| scale.ticks(most)).find(|ticks| fits(ticks)).unwrap_or_else(|| scale.ticks(2))
}

/// The numbers of an upright axis.
pub(crate) fn ticks_up(scale: &Scale, room: f64) -> Vec<Tick> {
    scale.ticks((room / 36.0) as usize)
}

/// Both axes of numbers, with grid and labels.
pub(crate) fn xy(canvas: &Canvas, rest: Rect, x: (&Axis, Scale), y: (&Axis, Scale)) -> Result<Frame> {
    let bottom = rest.bottom - NUMBERS - room_of_label(&x.0.label, rest.width());
    let room = bottom - rest.top;
    let up = ticks_up(&y.1, room);
    let left = rest.left + room_left(&y.0.label, &up, UPRIGHT);
    let area = Rect { left, right: rest.right - 16.0, bottom, top: rest.top + 4.0 };
    let across = ticks_across(&x.1, area.width());
    for at in x.1.fine() {
        let x = area.left + at * area.width();
        canvas.line((x, area.top), (x, area.bottom), FINE_GRID, 1.0)?;
    }
    for (at, _) in &across {
        let x = area.left + at * area.width();
        canvas.line((x, area.top), (x, area.bottom), GRID, 1.0)?;
    }
    y_axis(canvas, area, &y.0.label, &up, &y.1.fine(), rest)?;
    x_axis(canvas, area, &x.0.label, &across, rest)?;
    Ok(Frame { area, x: x.1, y: y.1 })
}

/// An upright axis: grid, numbers, label.
pub(crate) fn y_axis(
    canvas: &Canvas,
    area: Rect,
    label: &str,
    ticks: &[Tick],
    fine: &[f64],
    rest: Rect,
) -> Result<()> {
    let across = |at: f64, colour| {
        let y = area.bottom - at * area.height();
        canvas.line((area.left, y), (area.right, y), colour, 1.0)
    };
    fine.iter().try_for_each(|&at| across(at, FINE_GRID))?;
    ticks.iter().try_for_each(|&(at, _)| across(at, GRID))?;
    canvas.line((area.left, area.top), (area.left, area.bottom), AXIS, 1.0)?;
    y_words(canvas, area, (label, UPRIGHT), ticks, rest)
}

/// The numbers and the label of an upright axis; the label comes with its longest line.
pub(crate) fn y_words(
    canvas: &Canvas,
    area: Rect,
    label: (&str, f64),
    ticks: &[Tick],
    rest: Rect,
) -> Result<()> {
    for (at, number) in ticks {
        let y = area.bottom - at * area.height();
        canvas.text(number, (area.left - 6.0, y), SMALL, Side::Right, PALE_INK)?;
    }
    let lines = wrap(label.0, LABEL, label.1);
    let half = widest(&lines, LABEL) / 2.0;
    let y = area.centre().1.min(rest.bottom - half).max(rest.top + half);
    for (i, line) in lines.iter().enumerate() {
        let x = rest.left + (i as f64 + 0.5) * line_height(LABEL);
        canvas.upwards(line, (x, y), LABEL, Side::Middle, INK)?;
    }
    Ok(())
}

/// An axis below the area: line, numbers, label.
pub(crate) fn x_axis(canvas: &Canvas, area: Rect, label: &str, ticks: &[Tick], rest: Rect) -> Result<()> {
    canvas.line((area.left, area.bottom), (area.right, area.bottom), AXIS, 1.0)?;
    x_words(canvas, area, label, ticks, rest)
}

/// The numbers and the label below an area.
pub(crate) fn x_words(canvas: &Canvas, area: Rect, label: &str, ticks: &[Tick], rest: Rect) -> Result<()> {
    for (at, number) in ticks {
        let x = area.left + at * area.width();
        canvas.text(number, (x, area.bottom + 6.0 + SMALL * 0.6), SMALL, Side::Middle, PALE_INK)?;
    }
    x_label(canvas, area, label, area.bottom + NUMBERS, rest)
}

/// The label below an area, as near to its middle as the panel has room.
pub(crate) fn x_label(canvas: &Canvas, area: Rect, label: &str, top: f64, rest: Rect) -> Result<()> {
    let lines = wrap(label, LABEL, rest.width());
    let half = widest(&lines, LABEL) / 2.0;
    let x = area.centre().0.min(rest.right - half).max(rest.left + half);
    let y = top + 4.0 + lines.len() as f64 * line_height(LABEL) / 2.0;
    canvas.lines(&lines, (x, y), LABEL, Side::Middle, INK)
}

/// An error bar: a line with caps, as far as it is on the axis.
pub(crate) fn error_bar(
    canvas: &Canvas,
    area: Rect,
    x: f64,
    scale: &Scale,
    ends: (f64, f64),
    cap: f64,
) -> Result<()> {
    let y = |value| height_of(area, scale, value).clamp(area.top, area.bottom);
    let (low, high) = ends;
    canvas.line((x, y(low)), (x, y(high)), INK, 1.3)?;
    for end in [low, high].into_iter().filter(|&end| scale.has(end)) {
        canvas.line((x - cap, y(end)), (x + cap, y(end)), INK, 1.3)?;
    }
    Ok(())
}
