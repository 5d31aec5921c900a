//! Labelled points and bubbles.

use crate::canvas::{At, Canvas, Rect, Side};
use crate::error::{Error, Result};
use crate::frame::{Frame, error_bar, xy};
use crate::legend::{Legend, Sign};
use crate::numbers::short;
use crate::scale::{Scale, check, nice};
use crate::style::{INK, SMALL, line_height, look, widest, wrap};
use crate::{Point, Points};
use plotters::style::Color;

/// The radius of the largest bubble.
const LARGEST: f64 = 28.0;
/// The radius of a point without a size.
const DOT: f64 = 5.0;

impl Points {
    /// The areas of three bubbles, in round numbers.
    pub(crate) fn legend(&self, width: f64) -> Legend {
        let largest = self.largest();
        let Some(area) = self.area.as_ref().filter(|_| largest > 0.0) else { return Legend::new([], width) };
        // A round number below the largest area, about a fifth of it, and a fifth of that.
        let most =
            [largest / 2.0, largest / 2.5].map(nice).into_iter().find(|&a| a <= largest).unwrap_or(largest);
        let bubbles =
            [nice(most / 25.0), nice(most / 5.0), most].map(|a| (Sign::Bubble(self.radius(a)), short(a)));
        Legend::new([(Sign::Nothing, format!("area: {area}"))].into_iter().chain(bubbles), width)
    }

    fn largest(&self) -> f64 {
        self.points.iter().map(|p| p.area).fold(0.0, f64::max)
    }

    fn radius(&self, area: f64) -> f64 {
        match self.area {
            Some(_) if self.largest() > 0.0 => LARGEST * (area / self.largest()).sqrt(),
            _ => DOT,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.points.is_empty() {
            return Err(Error::data("no points"));
        }
        for point in &self.points {
            let label = &point.label;
            self.x.check(point.x, || format!("x of `{label}`"))?;
            self.y.check(point.y, || format!("y of `{label}`"))?;
            for (what, value) in [("error", point.error.unwrap_or(0.0)), ("area", point.area)] {
                if check(value, || format!("the {what} of `{label}`"))? < 0.0 {
                    return Err(Error::data(format!("the {what} of `{label}` is {value}, below zero")));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn draw(&self, canvas: &Canvas, rest: Rect) -> Result<()> {
        let ends =
            self.points.iter().flat_map(|p| [p.ends().0, p.ends().1]).filter(|&y| !self.y.log || y > 0.0);
        let x = Scale::new(&self.x, self.points.iter().map(|p| p.x), None)?;
        let y = Scale::new(&self.y, ends, None)?;
        for p in &self.points {
            x.insist(p.x, || format!("x of `{}`", p.label))?;
            y.insist(p.y, || format!("y of `{}`", p.label))?;
        }
        // Bubbles at the border need air.
        let air = self.points.iter().map(|p| self.radius(p.area)).fold(0.0, f64::max) + 4.0;
        let (x, y) = (
            x.with_air(&self.x, air / (rest.width() - 60.0)),
            y.with_air(&self.y, air / (rest.height() - 50.0)),
        );
        let frame = xy(canvas, rest, (&self.x, x), (&self.y, y))?;

        // Large ones first, so that none is hidden.
        let mut order: Vec<usize> = (0..self.points.len()).collect();
        order.sort_by(|&a, &b| self.points[b].area.total_cmp(&self.points[a].area));
        for &i in &order {
            let (p, colour) = (&self.points[i], look(i).colour);
            let (at, radius) = (frame.at((p.x, p.y)), self.radius(p.area));
            if p.error.is_some() {
                error_bar(canvas, frame.area, at.0, &frame.y, p.ends(), 5.0)?;
            }
            if self.area.is_some() {
                canvas.disc(at, radius, colour.mix(0.4))?;
                canvas.ring(at, radius, colour, 1.2)?;
                canvas.disc(at, 1.5, INK)?;
            } else {
                canvas.marker(at, radius, look(i).marker, colour)?;
            }
        }
        self.labels(canvas, &frame)
    }

    /// Each label goes where it covers least, near its point; one that is farther away gets a line to it.
    fn labels(&self, canvas: &Canvas, frame: &Frame) -> Result<()> {
        let discs: Vec<Rect> = self
            .points
            .iter()
            .map(|p| {
                let side = 1.8 * self.radius(p.area).max(4.0);
                Rect::around(frame.at((p.x, p.y)), side, side)
            })
            .collect();
        let bars = self.points.iter().filter(|p| p.error.is_some()).map(|p| {
            let ((x, top), (_, bottom)) = (frame.at((p.x, p.ends().1)), frame.at((p.x, p.ends().0)));
            Rect { left: x - 4.0, right: x + 4.0, top, bottom }
        });
        let mut taken: Vec<Rect> = discs.iter().copied().chain(bars).collect();
        for p in self.points.iter().filter(|p| !p.label.is_empty()) {
            let lines = wrap(&p.label, SMALL, 180.0);
            let size = (widest(&lines, SMALL), lines.len() as f64 * line_height(SMALL));
            let (at, radius) = (frame.at((p.x, p.y)), self.radius(p.area));
            let cost = |(far, r): &(f64, Rect)| {
                let outside = r.width() * r.height() - r.overlap(&frame.area);
                let covered: f64 = taken.iter().map(|other| r.overlap(other)).sum();
                100.0 * outside + 10.0 * covered + far
            };
            let best = candidates(at, radius, size).into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
            let Some((far, place)) = best else { continue };
            if far > 14.0 {
                let near = (at.0.clamp(place.left, place.right), at.1.clamp(place.top, place.bottom));
                canvas.line(at, near, INK.mix(0.5), 0.8)?;
            }
            canvas.lines(&lines, place.centre(), SMALL, Side::Middle, INK)?;
            taken.push(place);
        }
        Ok(())
    }
}

/// Places around a point, each with its distance, the nearest and most usual first.
fn candidates((x, y): At, radius: f64, (width, height): (f64, f64)) -> Vec<(f64, Rect)> {
    let mut places = Vec::new();
    for far in [4.0, 12.0, 24.0, 40.0, 60.0, 85.0] {
        let directions = [
            (1.0, 0.0),
            (0.0, -1.0),
            (-1.0, 0.0),
            (0.0, 1.0),
            (0.7, -0.7),
            (0.7, 0.7),
            (-0.7, -0.7),
            (-0.7, 0.7),
        ];
        for (i, (dx, dy)) in directions.into_iter().enumerate() {
            let reach = radius + far;
            let centre = (x + dx * (reach + width / 2.0), y + dy * (reach + height / 2.0));
            places.push((far + 0.1 * i as f64, Rect::around(centre, width, height)));
        }
    }
    places
}

impl Point {
    /// The lower and the upper end of the error bar.
    fn ends(&self) -> (f64, f64) {
        let half = self.error.unwrap_or(0.0);
        (self.y - half, self.y + half)
    }
}
