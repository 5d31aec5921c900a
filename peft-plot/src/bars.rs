//! Bars over categories.

use crate::bar_text::{Labels, Names};
use crate::canvas::{Canvas, Rect};
use crate::error::{Error, Result};
use crate::frame::{Frame, NUMBERS, UPRIGHT, error_bar, room_left, room_of_label, ticks_up, x_label, y_axis};
use crate::legend::{Legend, Sign};
use crate::scale::{Scale, check};
use crate::style::{AXIS, SMALL, look, widest, wrap};
use crate::{BarGroup, Bars};

/// The part of a category's width that its bars fill.
const FILLED: f64 = 0.8;

impl Bars {
    pub(crate) fn legend(&self, width: f64) -> Legend {
        let several = self.groups.len() > 1;
        let groups = self.groups.iter().enumerate().filter(|_| several);
        Legend::new(groups.map(|(i, g)| (Sign::Bar(look(i).colour), g.name.clone())), width)
    }

    /// The width in which bars are not too narrow, and no word below or over them either.
    pub(crate) fn width(&self) -> f64 {
        let word = widest(self.categories.iter().flat_map(|name| name.split_whitespace()), 10.0) + 14.0;
        let label = Labels::widest(&self.groups, 9.0) / FILLED + 4.0;
        self.categories.len() as f64 * word.max(label.max(32.0) * self.groups.len() as f64) + 100.0
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.categories.is_empty() || self.groups.is_empty() {
            return Err(Error::data("no categories or no groups of bars"));
        }
        for group in &self.groups {
            let lengths = [
                ("values", Some(group.values.len())),
                ("errors", group.errors.as_ref().map(Vec::len)),
                ("labels", group.labels.as_ref().map(Vec::len)),
            ];
            for (what, length) in lengths {
                if length.is_some_and(|n| n != self.categories.len()) {
                    let (n, of) = (length.unwrap_or(0), self.categories.len());
                    return Err(Error::data(format!(
                        "group `{}` has {n} {what} for {of} categories",
                        group.name
                    )));
                }
            }
            for (i, (&value, category)) in group.values.iter().zip(&self.categories).enumerate() {
                let what = || group.bar(category);
                self.y.check(value, what)?;
                let error = check(group.error(i), || format!("the error of {}", what()))?;
                if error < 0.0 {
                    return Err(Error::data(format!("the error of {} is {error}, below zero", what())));
                }
            }
        }
        Ok(())
    }

    fn scale(&self) -> Result<Scale> {
        let ends =
            self.groups.iter().flat_map(|g| (0..g.values.len()).flat_map(|i| <[f64; 2]>::from(g.ends(i))));
        // An error that reaches zero has no lower end on a logarithmic axis.
        let ends = ends.filter(|&end| !self.y.log || end > 0.0);
        let scale = Scale::new(&self.y, ends, Some(0.0))?;
        for group in &self.groups {
            for (&value, category) in group.values.iter().zip(&self.categories) {
                scale.insist(value, || group.bar(category))?;
            }
        }
        Ok(scale)
    }

    pub(crate) fn draw(&self, canvas: &Canvas, rest: Rect) -> Result<()> {
        let y = self.scale()?;
        // How much room there is for the names of categories decides their height, and that the plot's.
        let guess = ticks_up(&y, rest.height() - 60.0);
        let left = rest.left + room_left(&self.y.label, &guess, UPRIGHT);
        let slot = (rest.right - left) / self.categories.len() as f64;
        let names = Names::new(&self.categories, slot - 12.0);
        let bar = (FILLED * slot / self.groups.len() as f64).min(64.0);
        // A label may be wider than its bar where no other bar stands beside it.
        let labels = Labels::new(&self.groups, if self.groups.len() > 1 { bar } else { slot } - 3.0);

        let bottom =
            rest.bottom - names.height - NUMBERS + SMALL * 1.25 - room_of_label(&self.x, rest.width());
        let area = labels.spare(Rect { left, bottom, top: rest.top + 4.0, ..rest }, &y, &self.groups);
        let up = ticks_up(&y, area.height());
        y_axis(canvas, area, &self.y.label, &up, &y.fine(), rest)?;

        let base = if y.log { y.from } else { 0.0_f64.clamp(y.from, y.to) };
        let frame = Frame { area, x: Scale { log: false, from: 0.0, to: self.categories.len() as f64 }, y };
        for (g, group) in self.groups.iter().enumerate() {
            for (i, &value) in group.values.iter().enumerate() {
                let (middle, _) = frame.at((i as f64 + 0.5, base));
                let x = middle + (g as f64 + 0.5 - self.groups.len() as f64 / 2.0) * bar;
                let (one, other) = (frame.height_of(value), frame.height_of(base));
                let inset = if self.groups.len() > 1 { 0.5 } else { 0.12 * bar };
                let body = Rect {
                    left: x - bar / 2.0 + inset,
                    right: x + bar / 2.0 - inset,
                    top: one.min(other),
                    bottom: one.max(other),
                };
                canvas.rect(body, look(g).colour)?;
                if group.errors.is_some() {
                    error_bar(canvas, area, x, &y, group.ends(i), (0.2 * bar).min(6.0))?;
                }
                labels.draw(canvas, x, &frame, group, i)?;
            }
        }
        let zero = frame.height_of(base);
        canvas.line((area.left, zero), (area.right, zero), AXIS, 1.0)?;
        names.draw(canvas, &frame)?;
        x_label(canvas, area, &self.x, bottom + names.height + 7.0, rest)
    }
}

impl BarGroup {
    /// The words for a bar in a message.
    fn bar(&self, category: &str) -> String {
        format!("`{}` of group `{}`", category.replace('\n', " "), self.name)
    }

    pub(crate) fn error(&self, i: usize) -> f64 {
        self.errors.as_ref().and_then(|errors| errors.get(i)).copied().unwrap_or(0.0)
    }

    /// The lower and the upper end of the error bar.
    pub(crate) fn ends(&self, i: usize) -> (f64, f64) {
        let value = self.values.get(i).copied().unwrap_or(0.0);
        (value - self.error(i), value + self.error(i))
    }

    /// The lines over a bar; long ones are broken.
    pub(crate) fn label(&self, i: usize) -> Vec<String> {
        let label = self.labels.as_ref().and_then(|labels| labels.get(i));
        label.map(|label| wrap(label, SMALL, 120.0)).unwrap_or_default()
    }
}
