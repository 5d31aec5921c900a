//! A sheet in units of one pixel, with real coordinates.

use crate::error::{Error, Result};
use crate::style::{FAMILY, Marker, line_height, load_font};
use plotters::coord::Shift;
use plotters::element::{Circle, Drawable, PathElement, PointCollection, Polygon, Rectangle, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontTransform, IntoFont, RGBAColor, RGBColor, WHITE};

/// Plotters counts in whole steps; there are so many of them in a unit, and the picture is scaled down at the end.
const STEPS: f64 = 10.0;

/// A point: x to the right, y downwards.
pub(crate) type At = (f64, f64);

/// An upright rectangle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rect {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Rect {
    pub fn around(centre: At, width: f64, height: f64) -> Self {
        let (x, y) = centre;
        Rect {
            left: x - width / 2.0,
            right: x + width / 2.0,
            top: y - height / 2.0,
            bottom: y + height / 2.0,
        }
    }
    pub fn width(&self) -> f64 {
        self.right - self.left
    }
    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }
    pub fn centre(&self) -> At {
        ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0)
    }
    /// Whether a point is inside, or on the border but for rounding.
    pub fn has(&self, (x, y): At) -> bool {
        let near = 1e-6;
        (self.left - near..=self.right + near).contains(&x)
            && (self.top - near..=self.bottom + near).contains(&y)
    }
    /// The area that two rectangles share.
    pub fn overlap(&self, other: &Rect) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }
}

/// Which side of a text its place is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Left,
    Middle,
    Right,
}

pub(crate) struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

/// A white sheet of a size, drawn on by `draw`, as SVG.
pub(crate) fn sheet(width: f64, height: f64, draw: impl FnOnce(&Canvas) -> Result<()>) -> Result<String> {
    load_font()?;
    let (wide, high) = ((width * STEPS) as u32, (height * STEPS) as u32);
    let mut svg = String::new();
    let canvas = Canvas(SVGBackend::with_string(&mut svg, (wide, high)).into_drawing_area());
    canvas.rect(Rect { left: 0.0, top: 0.0, right: width, bottom: height }, WHITE)?;
    draw(&canvas)?;
    canvas.0.present().map_err(Error::draw)?;
    drop(canvas);
    // The view box stays in steps.
    let (steps, units) = (size(f64::from(wide), f64::from(high)), size(width, height));
    Ok(svg.replacen(&steps, &units, 1))
}

fn size(width: f64, height: f64) -> String {
    format!("width=\"{width}\" height=\"{height}\"")
}

fn steps((x, y): At) -> (i32, i32) {
    ((x * STEPS).round() as i32, (y * STEPS).round() as i32)
}

impl<'a> Canvas<'a> {
    fn draw<E>(&self, element: E) -> Result<()>
    where
        for<'b> &'b E: PointCollection<'b, (i32, i32)>,
        E: Drawable<SVGBackend<'a>>,
    {
        self.0.draw(&element).map_err(Error::draw)
    }

    pub fn line(&self, from: At, to: At, colour: impl Into<RGBAColor>, width: f64) -> Result<()> {
        self.path(&[from, to], colour, width)
    }

    pub fn path(&self, points: &[At], colour: impl Into<RGBAColor>, width: f64) -> Result<()> {
        let points: Vec<_> = points.iter().map(|&p| steps(p)).collect();
        self.draw(PathElement::new(points, colour.into().stroke_width((width * STEPS) as u32)))
    }

    pub fn polygon(&self, points: &[At], colour: impl Into<RGBAColor>) -> Result<()> {
        let points: Vec<_> = points.iter().map(|&p| steps(p)).collect();
        self.draw(Polygon::new(points, colour.into().filled()))
    }

    pub fn rect(&self, r: Rect, colour: impl Into<RGBAColor>) -> Result<()> {
        self.draw(Rectangle::new(
            [steps((r.left, r.top)), steps((r.right, r.bottom))],
            colour.into().filled(),
        ))
    }

    pub fn disc(&self, at: At, radius: f64, colour: impl Into<RGBAColor>) -> Result<()> {
        self.draw(Circle::new(steps(at), (radius * STEPS).round() as u32, colour.into().filled()))
    }

    pub fn ring(&self, at: At, radius: f64, colour: impl Into<RGBAColor>, width: f64) -> Result<()> {
        let style = colour.into().stroke_width((width * STEPS) as u32);
        self.draw(Circle::new(steps(at), (radius * STEPS).round() as u32, style))
    }

    /// A curve in dashes and gaps of these lengths in turn; none make it solid.
    pub fn dashed(&self, points: &[At], colour: RGBColor, width: f64, dash: &[f64]) -> Result<()> {
        if dash.is_empty() {
            return self.path(points, colour, width);
        }
        let mut lengths = dash.iter().copied().cycle();
        let (mut left, mut solid) = (lengths.next().unwrap_or(1.0), true);
        let mut piece: Vec<At> = points.first().copied().into_iter().collect();
        for ends in points.windows(2) {
            let ((x0, y0), (x1, y1)) = (ends[0], ends[1]);
            let length = (x1 - x0).hypot(y1 - y0);
            let mut done = 0.0;
            while length - done > left {
                done += left;
                let t = done / length;
                piece.push((x0 + t * (x1 - x0), y0 + t * (y1 - y0)));
                if solid {
                    self.path(&piece, colour, width)?;
                }
                piece.drain(..piece.len() - 1);
                (left, solid) = (lengths.next().unwrap_or(1.0), !solid);
            }
            left -= length - done;
            piece.push((x1, y1));
        }
        if solid { self.path(&piece, colour, width) } else { Ok(()) }
    }

    pub fn marker(&self, (x, y): At, r: f64, marker: Marker, colour: RGBColor) -> Result<()> {
        let line = |dx: f64, dy: f64| self.line((x - dx, y - dy), (x + dx, y + dy), colour, 2.0);
        match marker {
            Marker::Circle => self.disc((x, y), r, colour),
            Marker::Ring => self.disc((x, y), r, WHITE).and_then(|()| self.ring((x, y), r, colour, 1.5)),
            Marker::Square => self.rect(Rect::around((x, y), 1.8 * r, 1.8 * r), colour),
            Marker::Triangle => {
                self.polygon(&[(x, y - 1.2 * r), (x - 1.1 * r, y + r), (x + 1.1 * r, y + r)], colour)
            }
            Marker::Nabla => {
                self.polygon(&[(x, y + 1.2 * r), (x - 1.1 * r, y - r), (x + 1.1 * r, y - r)], colour)
            }
            Marker::Diamond => self
                .polygon(&[(x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)], colour),
            Marker::Cross => line(r, r).and_then(|()| line(r, -r)),
            Marker::Plus => line(1.2 * r, 0.0).and_then(|()| line(0.0, 1.2 * r)),
        }
    }

    /// A line of text, in the middle of its height at `at`.
    pub fn text(&self, text: &str, at: At, size: f64, side: Side, colour: RGBColor) -> Result<()> {
        self.write(text, at, size, side, colour, FontTransform::None)
    }

    /// Lines of text, `at` in the middle of their height.
    pub fn lines(&self, lines: &[String], at: At, size: f64, side: Side, colour: RGBColor) -> Result<()> {
        let first = at.1 - (lines.len() as f64 - 1.0) / 2.0 * line_height(size);
        for (i, line) in lines.iter().enumerate() {
            self.text(line, (at.0, first + i as f64 * line_height(size)), size, side, colour)?;
        }
        Ok(())
    }

    /// A line of text that is read from below; its left is the bottom.
    pub fn upwards(&self, text: &str, at: At, size: f64, side: Side, colour: RGBColor) -> Result<()> {
        self.write(text, at, size, side, colour, FontTransform::Rotate270)
    }

    fn write(
        &self,
        text: &str,
        at: At,
        size: f64,
        side: Side,
        ink: RGBColor,
        turn: FontTransform,
    ) -> Result<()> {
        if let Some(c) = text.chars().find(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
            return Err(Error::data(format!("{text:?} has the character {c:?}, which cannot be drawn")));
        }
        let side = match side {
            Side::Left => HPos::Left,
            Side::Middle => HPos::Center,
            Side::Right => HPos::Right,
        };
        // Plotters divides sizes by 1.24 on their way to the SVG.
        let font = (FAMILY, size * STEPS * 1.24).into_font().transform(turn);
        self.draw(Text::new(text.to_owned(), steps(at), font.color(&ink).pos(Pos::new(side, VPos::Center))))
    }
}
