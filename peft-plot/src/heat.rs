//! Matrices as colours.

use crate::canvas::{Canvas, Rect, Side};
use crate::error::{Error, Result};
use crate::frame::{NUMBERS, room_left, room_of_label, x_words, y_words};
use crate::numbers::short;
use crate::scale::{Scale, Tick, check, extent};
use crate::style::{AXIS, INK, LABEL, PALE_INK, SMALL, line_height, longest_word, widest, width};
use crate::{Colours, Heat};
use plotters::style::RGBColor;

/// So many rows and columns are drawn at most, for a cell has to be as large as a pixel.
const MOST: usize = 256;

/// The width of the colour bar.
const BAR: f64 = 14.0;

impl Heat {
    /// The number of rows and columns.
    fn shape(&self) -> Result<(usize, usize)> {
        let columns = self.rows.first().map_or(0, Vec::len);
        if columns == 0 {
            return Err(Error::data("no cells"));
        }
        for (i, row) in self.rows.iter().enumerate() {
            if row.len() != columns {
                return Err(Error::data(format!(
                    "row {i} has {} values, the first one {columns}",
                    row.len()
                )));
            }
            for (j, &value) in row.iter().enumerate() {
                check(value, || format!("row {i}, column {j}"))?;
            }
        }
        let rows = self.rows.len();
        if rows.max(columns) > MOST {
            return Err(Error::data(format!("{rows} × {columns} cells are more than {MOST} × {MOST}")));
        }
        match &self.divider {
            Some((at, ..)) if *at == 0 || *at >= columns => {
                Err(Error::data(format!("a divider before column {at} is not inside of {columns} columns")))
            }
            _ => Ok((rows, columns)),
        }
    }

    /// The values of the ends of the colour bar.
    fn ends(&self) -> Result<Scale> {
        let values: Vec<f64> = self.rows.iter().flatten().copied().collect();
        let (low, high) = extent(&values).ok_or_else(|| Error::data("no cells"))?;
        let (from, to) =
            match (self.range, self.colours) {
                (Some((from, to)), _) => {
                    let finite = from.is_finite() && to.is_finite();
                    if !finite || to - from <= 1e-9 * from.abs().max(to.abs()) {
                        return Err(Error::data(format!("colours cannot go from {from} to {to}")));
                    }
                    (from, to)
                }
                (None, Colours::Diverging) => {
                    let most = low.abs().max(high.abs());
                    if most == 0.0 { (-1.0, 1.0) } else { (-most, most) }
                }
                (None, Colours::Sequential) if high - low <= 1e-9 * low.abs().max(high.abs()) => {
                    if high == 0.0 { (0.0, 1.0) } else { (high.min(0.0), high.max(0.0)) }
                }
                (None, Colours::Sequential) => (low, high),
            };
        Ok(Scale { log: false, from, to })
    }

    fn colour(&self, value: f64, ends: &Scale) -> RGBColor {
        match self.colours {
            // Both sides of zero are equally steep, also where one end is nearer.
            Colours::Diverging => {
                let most = ends.from.abs().max(ends.to.abs());
                blend(&DIVERGING, (value.clamp(ends.from, ends.to) / most + 1.0) / 2.0)
            }
            Colours::Sequential => blend(&SEQUENTIAL, ends.at(value)),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.plan().map(drop)
    }

    /// Width and height without the title.
    pub(crate) fn size(&self) -> Result<(f64, f64)> {
        self.plan().map(|plan| (plan.width, plan.height))
    }

    /// The room for the words of a divider above the map.
    pub(crate) fn head(&self) -> f64 {
        if self.divider.is_some() { line_height(SMALL) + 4.0 } else { 0.0 }
    }

    fn plan(&self) -> Result<Plan> {
        let (rows, columns) = self.shape()?;
        let ends = self.ends()?;
        let map = map(rows, columns);
        let high = (map.1 + NUMBERS).max(longest_word(&self.y, LABEL));
        let numbers = widest(self.numbers(&ends, map.1).iter().map(|n| &n.1), SMALL);
        let mut left = room_left(&self.y, &counts(rows, map.1, 15.0), high);
        let mut right = 12.0 + BAR + 8.0 + numbers;
        if let Some((at, before, after)) = &self.divider {
            let at = map.0 * *at as f64 / columns as f64;
            left = left.max(width(before, SMALL) + 6.0 - at);
            right = right.max(width(after, SMALL) + 6.0 - (map.0 - at));
        }
        let wide = (left + map.0 + right).max(longest_word(&self.x, LABEL)).ceil();
        let height = self.head() + high.max(map.1 + NUMBERS + room_of_label(&self.x, wide));
        Ok(Plan { rows, columns, ends, map, high, left, right, width: wide, height })
    }

    pub(crate) fn draw(&self, canvas: &Canvas, rest: Rect) -> Result<()> {
        let Plan { rows, columns, ends, map, high, left, right, .. } = self.plan()?;
        let words = self.head();
        let start = (rest.left + left + (rest.width() - left - map.0 - right) / 2.0).round();
        let top = (rest.top + words).ceil();
        let area = Rect { left: start, top, right: start + map.0, bottom: top + map.1 };

        // Borders of cells are whole units, so that no gap shows between them.
        let x = |j: usize| area.left + (j as f64 * area.width() / columns as f64).round();
        let y = |i: usize| area.top + (i as f64 * area.height() / rows as f64).round();
        for (i, row) in self.rows.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let cell = Rect { left: x(j), right: x(j + 1), top: y(i), bottom: y(i + 1) };
                canvas.rect(cell, self.colour(value, &ends))?;
            }
        }
        border(canvas, area)?;
        if let Some((at, before, after)) = &self.divider {
            let x = x(*at);
            let y = area.top - words / 2.0;
            canvas.line((x, area.top - words), (x, area.bottom), INK, 1.6)?;
            let (w, v) = (width(before, SMALL), width(after, SMALL));
            let one = ((area.left + x) / 2.0).min(x - 5.0 - w / 2.0).max(rest.left + w / 2.0);
            let other = ((area.right + x) / 2.0).max(x + 5.0 + v / 2.0).min(rest.right - v / 2.0);
            canvas.text(before, (one, y), SMALL, Side::Middle, INK)?;
            canvas.text(after, (other, y), SMALL, Side::Middle, INK)?;
        }
        let up: Vec<Tick> =
            counts(rows, area.height(), 15.0).into_iter().map(|(at, n)| (1.0 - at, n)).collect();
        let beside = Rect { left: area.left - left, top: rest.top, bottom: area.top + high, ..rest };
        y_words(canvas, area, (&self.y, high), &up, beside)?;
        let across = counts(columns, area.width(), width(&columns.to_string(), SMALL) + 12.0);
        x_words(canvas, area, &self.x, &across, rest)?;
        self.bar(canvas, area, &ends)
    }

    /// The numbers beside the colour bar: its ends, which say so where values lie beyond them, and some between.
    fn numbers(&self, ends: &Scale, room: f64) -> Vec<Tick> {
        let beyond = |past: &dyn Fn(f64) -> bool| self.rows.iter().flatten().any(|&v| past(v));
        let low = if beyond(&|v| v < ends.from) { "≤ " } else { "" };
        let high = if beyond(&|v| v > ends.to) { "≥ " } else { "" };
        let air = line_height(SMALL) / room;
        let between =
            ends.ticks((room / 60.0) as usize).into_iter().filter(|(at, _)| (air..1.0 - air).contains(at));
        let ends = [(0.0, format!("{low}{}", short(ends.from))), (1.0, format!("{high}{}", short(ends.to)))];
        between.chain(ends).collect()
    }

    fn bar(&self, canvas: &Canvas, area: Rect, ends: &Scale) -> Result<()> {
        let bar = Rect { left: area.right + 12.0, right: area.right + 12.0 + BAR, ..area };
        let steps = bar.height() as usize;
        for step in 0..steps {
            let value = ends.from + (step as f64 + 0.5) / steps as f64 * (ends.to - ends.from);
            let bottom = bar.bottom - step as f64;
            canvas.rect(Rect { top: bottom - 1.0, bottom, ..bar }, self.colour(value, ends))?;
        }
        border(canvas, bar)?;
        for (at, number) in self.numbers(ends, bar.height()) {
            let y = bar.bottom - at * bar.height();
            canvas.line((bar.right, y), (bar.right + 3.0, y), AXIS, 1.0)?;
            canvas.text(&number, (bar.right + 6.0, y), SMALL, Side::Left, PALE_INK)?;
        }
        Ok(())
    }
}

fn border(canvas: &Canvas, r: Rect) -> Result<()> {
    let corners =
        [(r.left, r.top), (r.right, r.top), (r.right, r.bottom), (r.left, r.bottom), (r.left, r.top)];
    canvas.path(&corners, AXIS, 0.8)
}

/// The longest sides of a map, of its cells, and the shortest side, on which a few numbers have room.
const WIDEST: f64 = 520.0;
const HIGHEST: f64 = 320.0;
const CELL: f64 = 40.0;
const LEAST: f64 = 60.0;

/// Width and height of a map in whole units. Its cells are squares, unless a side would be too short.
fn map(rows: usize, columns: usize) -> (f64, f64) {
    let (rows, columns) = (rows as f64, columns as f64);
    let cell = CELL.min(WIDEST / columns).min(HIGHEST / rows);
    ((cell * columns).max(LEAST).round(), (cell * rows).max(LEAST).round())
}

/// How a map and its words share a panel.
struct Plan {
    rows: usize,
    columns: usize,
    ends: Scale,
    /// Width and height of the map.
    map: (f64, f64),
    /// The longest line of the upright label.
    high: f64,
    /// The room beside the map.
    left: f64,
    right: f64,
    width: f64,
    height: f64,
}

/// Numbers of rows or columns, at the middles of their cells.
fn counts(of: usize, room: f64, each: f64) -> Vec<Tick> {
    let steps = [1, 2, 4, 8, 16, 32, 64, 128];
    let step = steps.into_iter().find(|s| room / of as f64 * *s as f64 >= each).unwrap_or(of);
    (0..of).step_by(step.max(1)).map(|i| ((i as f64 + 0.5) / of as f64, i.to_string())).collect()
}

/// Between colours at equal distances, from 0 to 1.
fn blend(colours: &[[u8; 3]], at: f64) -> RGBColor {
    let place = at.clamp(0.0, 1.0) * (colours.len() - 1) as f64;
    let index = (place as usize).min(colours.len() - 2);
    let mix = |c: usize| {
        let (a, b) = (f64::from(colours[index][c]), f64::from(colours[index + 1][c]));
        (a + (place - index as f64) * (b - a)).round() as u8
    };
    RGBColor(mix(0), mix(1), mix(2))
}

/// ColorBrewer's RdBu, turned around, with a white middle.
const DIVERGING: [[u8; 3]; 11] = [
    [5, 48, 97],
    [33, 102, 172],
    [67, 147, 195],
    [146, 197, 222],
    [209, 229, 240],
    [255, 255, 255],
    [253, 219, 199],
    [244, 165, 130],
    [214, 96, 77],
    [178, 24, 43],
    [103, 0, 31],
];

/// ColorBrewer's Blues from white.
const SEQUENTIAL: [[u8; 3]; 6] =
    [[255, 255, 255], [214, 230, 244], [158, 202, 225], [74, 152, 201], [23, 100, 171], [8, 48, 107]];
