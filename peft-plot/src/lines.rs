//! Curves and their bands.

use crate::canvas::{At, Canvas, Rect};
use crate::clip;
use crate::error::{Error, Result};
use crate::frame::{Frame, xy};
use crate::legend::{Legend, Sign};
use crate::scale::{Scale, check};
use crate::style::{FAINT, Look, look};
use crate::{Lines, Series};
use plotters::style::Color;

impl Lines {
    pub(crate) fn legend(&self, width: f64) -> Legend {
        let several = self.series.len() > 1;
        let named = self.series.iter().enumerate().filter(|(_, s)| several && !s.name.is_empty());
        Legend::new(named.map(|(i, s)| (Sign::Curve(s.look(i), s.marked()), s.name.clone())), width)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.series.is_empty() {
            return Err(Error::data("no curves"));
        }
        for series in &self.series {
            let name = &series.name;
            if series.points.is_empty() {
                return Err(Error::data(format!("curve `{name}` has no points")));
            }
            for (i, &(x, y)) in series.points.iter().enumerate() {
                self.x.check(x, || format!("x of point {i} of curve `{name}`"))?;
                self.y.check(y, || format!("y of point {i} of curve `{name}`"))?;
            }
            let Some(band) = &series.band else { continue };
            if band.len() != series.points.len() {
                let (n, of) = (band.len(), series.points.len());
                return Err(Error::data(format!(
                    "the band of curve `{name}` has {n} values for {of} points"
                )));
            }
            for (i, &half) in band.iter().enumerate() {
                if check(half, || format!("the band at point {i} of curve `{name}`"))? < 0.0 {
                    return Err(Error::data(format!(
                        "the band at point {i} of curve `{name}` is {half}, below zero"
                    )));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn draw(&self, canvas: &Canvas, rest: Rect) -> Result<()> {
        let x = Scale::new(&self.x, self.series.iter().flat_map(|s| s.points.iter().map(|p| p.0)), None)?;
        // What is not seen does not count for the other axis.
        let seen = self
            .series
            .iter()
            .flat_map(|s| s.edges())
            .filter(|&(at, y)| x.has(at) && (!self.y.log || y > 0.0));
        let y = Scale::new(&self.y, seen.map(|(_, y)| y), None)?;
        let frame = xy(canvas, rest, (&self.x, x), (&self.y, y))?;
        for (i, series) in self.series.iter().enumerate() {
            if series.band.is_some() {
                let outline: Vec<At> = series.outline().into_iter().map(|p| frame.at(p)).collect();
                canvas.polygon(&clip::polygon(&outline, frame.area), series.look(i).colour.mix(0.18))?;
            }
        }
        let (faint, clear): (Vec<_>, Vec<_>) = self.series.iter().enumerate().partition(|(_, s)| s.faint);
        for (i, series) in faint.into_iter().chain(clear) {
            series.draw(canvas, &frame, i)?;
        }
        Ok(())
    }
}

impl Series {
    /// A single point is no curve, so it is marked in any case.
    fn marked(&self) -> bool {
        self.markers || self.points.len() == 1
    }

    fn look(&self, index: usize) -> Look {
        if self.faint { FAINT } else { look(index) }
    }

    fn halves(&self) -> impl DoubleEndedIterator<Item = ((f64, f64), f64)> + ExactSizeIterator {
        let half = |i| self.band.as_ref().and_then(|band| band.get(i)).copied().unwrap_or(0.0);
        self.points.iter().copied().enumerate().map(move |(i, p)| (p, half(i)))
    }

    /// All points of the curve and of its band.
    fn edges(&self) -> impl Iterator<Item = (f64, f64)> {
        self.halves().flat_map(|((x, y), half)| [(x, y), (x, y - half), (x, y + half)])
    }

    /// Once around the band.
    fn outline(&self) -> Vec<(f64, f64)> {
        let above = self.halves().map(|((x, y), half)| (x, y + half));
        let below = self.halves().rev().map(|((x, y), half)| (x, y - half));
        above.chain(below).collect()
    }

    fn draw(&self, canvas: &Canvas, frame: &Frame, index: usize) -> Result<()> {
        let look = self.look(index);
        let width = if self.faint { 1.0 } else { 2.0 };
        let points: Vec<At> = self.points.iter().map(|&p| frame.at(p)).collect();
        for piece in clip::curve(&points, frame.area) {
            canvas.dashed(&piece, look.colour, width, look.dash)?;
        }
        if self.marked() {
            for &point in points.iter().filter(|&&p| frame.area.has(p)) {
                canvas.marker(point, 4.0, look.marker, look.colour)?;
            }
        }
        Ok(())
    }
}
