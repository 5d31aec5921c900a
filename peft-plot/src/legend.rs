//! Signs and their names, in rows below a plot.

use crate::canvas::{At, Canvas, Rect, Side};
use crate::error::Result;
use crate::style::{INK, Look, SMALL, line_height, widest, wrap};
use plotters::style::{Color, RGBColor};

/// What stands before a name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sign {
    Nothing,
    Bar(RGBColor),
    Curve(Look, bool),
    /// A bubble of a radius.
    Bubble(f64),
}

impl Sign {
    fn size(&self) -> (f64, f64) {
        match self {
            Sign::Nothing => (0.0, 0.0),
            Sign::Bar(_) => (12.0, 12.0),
            Sign::Curve(..) => (40.0, 10.0),
            Sign::Bubble(radius) => (2.0 * radius, 2.0 * radius),
        }
    }

    fn draw(&self, canvas: &Canvas, (x, y): At) -> Result<()> {
        let (width, height) = self.size();
        let centre = (x + width / 2.0, y);
        match *self {
            Sign::Nothing => Ok(()),
            Sign::Bar(colour) => canvas.rect(Rect::around(centre, width, height), colour),
            Sign::Curve(look, marker) => {
                canvas.dashed(&[(x, y), (x + width, y)], look.colour, 2.0, look.dash)?;
                if marker { canvas.marker(centre, 4.0, look.marker, look.colour) } else { Ok(()) }
            }
            Sign::Bubble(radius) => {
                canvas.disc(centre, radius, INK.mix(0.15))?;
                canvas.ring(centre, radius, INK.mix(0.6), 1.0)
            }
        }
    }
}

/// The entries of a legend in rows.
pub(crate) struct Legend {
    rows: Vec<Row>,
}

struct Row {
    /// Sign, lines of the name, and the distance from the left.
    items: Vec<(Sign, Vec<String>, f64)>,
    width: f64,
    height: f64,
}

const GAP: f64 = 20.0;
const AIR: f64 = 8.0;

impl Legend {
    /// As many entries in a row as the width has room for.
    pub fn new(entries: impl IntoIterator<Item = (Sign, String)>, most: f64) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        for (sign, name) in entries {
            let (width, height) = sign.size();
            let before = if width > 0.0 { width + 6.0 } else { 0.0 };
            let lines = wrap(&name, SMALL, most - before);
            let width = before + widest(&lines, SMALL);
            let height = height.max(lines.len() as f64 * line_height(SMALL)) + 4.0;
            match rows.last_mut().filter(|row| row.width + GAP + width <= most) {
                Some(row) => {
                    row.items.push((sign, lines, row.width + GAP));
                    row.width += GAP + width;
                    row.height = row.height.max(height);
                }
                None => rows.push(Row { items: vec![(sign, lines, 0.0)], width, height }),
            }
        }
        Legend { rows }
    }

    pub fn height(&self) -> f64 {
        if self.rows.is_empty() { 0.0 } else { AIR + self.rows.iter().map(|row| row.height).sum::<f64>() }
    }

    /// Draws at the top of a place, in its middle. All rows start at the left of the longest.
    pub fn draw(&self, canvas: &Canvas, place: Rect) -> Result<()> {
        let widest = self.rows.iter().map(|row| row.width).fold(0.0, f64::max);
        let left = place.centre().0 - widest / 2.0;
        let mut y = place.top + AIR;
        for row in &self.rows {
            for (sign, lines, x) in &row.items {
                let middle = y + row.height / 2.0;
                sign.draw(canvas, (left + x, middle))?;
                let (width, _) = sign.size();
                let x = left + x + if width > 0.0 { width + 6.0 } else { 0.0 };
                canvas.lines(lines, (x, middle), SMALL, Side::Left, INK)?;
            }
            y += row.height;
        }
        Ok(())
    }
}
