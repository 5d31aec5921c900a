//! The words over and under bars.

use crate::BarGroup;
use crate::canvas::{Canvas, Rect, Side};
use crate::error::Result;
use crate::frame::{Frame, height_of};
use crate::scale::Scale;
use crate::style::{INK, PALE_INK, SMALL, line_height, widest, wrap};

/// What is written at the ends of the bars: upright if the bars are narrow.
pub(crate) struct Labels {
    size: f64,
    upright: bool,
}

impl Labels {
    pub fn new(groups: &[BarGroup], room: f64) -> Self {
        let size = (room / Self::widest(groups, 1.0)).min(SMALL);
        if size >= 8.0 { Labels { size, upright: false } } else { Labels { size: 10.0, upright: true } }
    }

    /// The width of the widest label in letters of a size.
    pub fn widest(groups: &[BarGroup], size: f64) -> f64 {
        widest(groups.iter().flat_map(|g| (0..g.values.len()).flat_map(|i| g.label(i))), size)
    }

    fn height(&self, lines: &[String]) -> f64 {
        match self.upright {
            _ if lines.is_empty() => 0.0,
            true => widest(lines, self.size) + 8.0,
            false => lines.len() as f64 * line_height(self.size) + 5.0,
        }
    }

    /// The area with so much less above and below that the labels of the longest bars fit as well.
    pub fn spare(&self, room: Rect, y: &Scale, groups: &[BarGroup]) -> Rect {
        let mut area = room;
        for _ in 0..6 {
            let (mut above, mut below) = (room.top, room.bottom);
            for group in groups {
                for (i, &value) in group.values.iter().enumerate() {
                    let (end, height) = (self.end(group, i, value, y), self.height(&group.label(i)));
                    let y = height_of(area, y, end);
                    if value >= 0.0 {
                        above = above.max(area.top + height - (y - room.top));
                    } else {
                        below = below.min(area.bottom - height + (room.bottom - y));
                    }
                }
            }
            area = Rect {
                top: above.clamp(room.top, room.top + 150.0),
                bottom: below.max(room.bottom - 150.0),
                ..room
            };
        }
        area
    }

    /// The value beyond which the label stands: that of the bar or of its error bar's end.
    fn end(&self, group: &BarGroup, i: usize, value: f64, y: &Scale) -> f64 {
        let (low, high) = group.ends(i);
        (if value >= 0.0 { high } else { low }).clamp(y.from, y.to)
    }

    pub fn draw(&self, canvas: &Canvas, x: f64, frame: &Frame, group: &BarGroup, i: usize) -> Result<()> {
        let lines = group.label(i);
        let value = group.values.get(i).copied().unwrap_or(0.0);
        let sign = if value >= 0.0 { -1.0 } else { 1.0 };
        let end = frame.height_of(self.end(group, i, value, &frame.y)) + sign * 3.0;
        let line = line_height(self.size);
        for (k, text) in lines.iter().enumerate() {
            let shift = (k as f64 - (lines.len() as f64 - 1.0) / 2.0) * line;
            if self.upright {
                let side = if sign < 0.0 { Side::Left } else { Side::Right };
                canvas.upwards(text, (x + shift, end), self.size, side, INK)?;
            } else {
                let middle = end + sign * lines.len() as f64 * line / 2.0;
                canvas.text(text, (x, middle + shift), self.size, Side::Middle, INK)?;
            }
        }
        Ok(())
    }
}

/// The names below the bars: in lines of whole words if they fit, else upright.
pub(crate) struct Names {
    lines: Vec<Vec<String>>,
    size: f64,
    upright: bool,
    pub height: f64,
}

impl Names {
    pub fn new(names: &[String], room: f64) -> Self {
        for size in [SMALL, 10.0, 9.0] {
            let words = names.iter().flat_map(|name| name.split_whitespace());
            let lines: Vec<_> = names.iter().map(|name| wrap(name, size, room)).collect();
            let most = lines.iter().map(Vec::len).max().unwrap_or(0);
            if widest(words, size) <= room && most <= 3 {
                return Names { height: most as f64 * line_height(size), lines, size, upright: false };
            }
        }
        let size = 10.0;
        let lines: Vec<_> = names.iter().map(|name| wrap(name, size, 130.0)).collect();
        Names { height: widest(lines.iter().flatten(), size) + 2.0, lines, size, upright: true }
    }

    pub fn draw(&self, canvas: &Canvas, frame: &Frame) -> Result<()> {
        for (i, lines) in self.lines.iter().enumerate() {
            let (x, _) = frame.at((i as f64 + 0.5, frame.y.from));
            let top = frame.area.bottom + 6.0;
            for (k, text) in lines.iter().enumerate() {
                let line = line_height(self.size);
                if self.upright {
                    let shift = (k as f64 - (lines.len() as f64 - 1.0) / 2.0) * line;
                    canvas.upwards(text, (x + shift, top), self.size, Side::Right, PALE_INK)?;
                } else {
                    canvas.text(
                        text,
                        (x, top + (k as f64 + 0.5) * line),
                        self.size,
                        Side::Middle,
                        PALE_INK,
                    )?;
                }
            }
        }
        Ok(())
    }
}
