//! Figures as data, drawn as SVG and PNG.
//!
//! A [`Figure`] says what is to be seen and not how: panels of bars, lines, points or heat maps with their titles,
//! units and legends. It can be compared with recorded numbers and written as JSON; [`Figure::save`] draws it.
//!
//! Nothing of the system is needed: the font is part of the crate. Colours are those of Okabe and Ito, which people
//! with any kind of colour vision can tell apart; series differ in their markers and dashes as well.
//!
//! ```
//! use peft_plot::{Axis, Figure, Lines, Panel, Series};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lora = Series { name: "LoRA".into(), points: vec![(0.0, 2.3), (100.0, 1.1), (200.0, 0.9)], ..Series::default() };
//! let loss = Lines {
//!     title: "Loss".into(),
//!     x: Axis { label: "step".into(), ..Axis::default() },
//!     y: Axis { label: "cross-entropy (nats)".into(), ..Axis::default() },
//!     series: vec![lora],
//! };
//! let figure = Figure { title: "Training".into(), rows: vec![vec![Panel::Lines(loss)]], note: None };
//!
//! let dir = tempfile::tempdir()?;
//! let [svg, png] = figure.save(dir.path(), "loss")?;
//! assert!(std::fs::read_to_string(svg)?.contains("cross-entropy (nats)"));
//! assert!(std::fs::read(png)?.starts_with(b"\x89PNG"));
//! # Ok(())
//! # }
//! ```
//!
//! What cannot be drawn as it is (a number that is none, a label too many, zero on a logarithmic axis) is an
//! [`Error`] that names the panel and the number. `cargo run -p peft-plot --example gallery -- DIR` draws one of each.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod bar_text;
mod bars;
mod canvas;
mod clip;
mod draw;
mod error;
mod frame;
mod heat;
mod legend;
mod lines;
mod numbers;
mod points;
mod save;
mod scale;
mod style;

pub use error::Error;
pub use save::make_directory;

use serde::Serialize;
use std::path::{Path, PathBuf};

/// A picture: rows of panels under one title.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Over all panels.
    pub title: String,
    /// Rows from top to bottom, panels from left to right.
    pub rows: Vec<Vec<Panel>>,
    /// A line under the panels: where the numbers come from, what to look at.
    pub note: Option<String>,
}

impl Figure {
    /// The picture as SVG. The same figure gives the same bytes.
    pub fn svg(&self) -> Result<String, Error> {
        draw::svg(self, draw::PLOT)
    }

    /// As [`Figure::svg`], with plots of curves and points, and bars where they are few, of this width and height in place
    /// of 620 × 400: a page that is read on a telephone has room for 330, without scaling the letters down.
    pub fn svg_of(&self, plot: (f64, f64)) -> Result<String, Error> {
        draw::svg(self, plot)
    }

    /// The picture as PNG, with two pixels for each unit of the SVG.
    pub fn png(&self) -> Result<Vec<u8>, Error> {
        save::png(&self.svg()?)
    }

    /// Writes `name.svg` and `name.png` into a directory, which is made if it is not there. Each is written whole or
    /// not at all; the paths come back.
    pub fn save(&self, dir: &Path, name: &str) -> Result<[PathBuf; 2], Error> {
        let svg = self.svg()?;
        save::save(dir, name, &svg, &save::png(&svg)?)
    }
}

/// One plot of a figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Panel {
    /// Bars over categories.
    Bars(Bars),
    /// Curves.
    Lines(Lines),
    /// Labelled points or bubbles.
    Points(Points),
    /// A matrix as colours.
    Heat(Heat),
}

/// An axis: what is measured, in which unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Axis {
    /// With its unit: "trainable parameters (millions)".
    pub label: String,
    /// Powers of ten at equal distances; every value has to be above zero.
    pub log: bool,
    /// From where to where; from the data if it is not given. Bars and points have to be inside, curves are cut.
    pub range: Option<(f64, f64)>,
}

/// Bars over categories, one group of bars each.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bars {
    /// Over the panel.
    pub title: String,
    /// One for each bar of a group; long names are broken into lines.
    pub categories: Vec<String>,
    /// What the categories are.
    pub x: String,
    /// What the bars measure, from zero; on a logarithmic axis from a power of ten below the least of them.
    pub y: Axis,
    /// One value for each category in each group; a legend names groups where there are several.
    pub groups: Vec<BarGroup>,
}

/// The bars of one colour.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BarGroup {
    /// For the legend.
    pub name: String,
    /// One for each category.
    pub values: Vec<f64>,
    /// Half the height of each error bar.
    pub errors: Option<Vec<f64>>,
    /// What is written over each bar; lines are parted by `\n`.
    pub labels: Option<Vec<String>>,
}

/// Curves.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Lines {
    /// Over the panel.
    pub title: String,
    /// What runs to the right.
    pub x: Axis,
    /// What the curves measure.
    pub y: Axis,
    /// A legend has the names of those with one, where there are several: a single curve is what the title says.
    pub series: Vec<Series>,
}

/// One curve.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// In the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// Half the height of a band around each point.
    pub band: Option<Vec<f64>>,
    /// Draws each point as well, for few of them.
    pub markers: bool,
    /// Thin and grey behind the others: the single values of which another curve is the mean, say.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub faint: bool,
}

/// Labelled points, of which each may have a size of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Points {
    /// Over the panel.
    pub title: String,
    /// What is measured to the right.
    pub x: Axis,
    /// What is measured upwards.
    pub y: Axis,
    /// Each has a colour of its own.
    pub points: Vec<Point>,
    /// What the area of a bubble means, with its unit; without it all points are of one size.
    pub area: Option<String>,
}

/// A point and its label.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Point {
    /// What is written beside it; lines are parted by `\n`.
    pub label: String,
    /// Its place to the right.
    pub x: f64,
    /// Its height.
    pub y: f64,
    /// Half the height of the error bar.
    pub error: Option<f64>,
    /// Area of the bubble, in the figure's unit.
    pub area: f64,
}

/// A matrix as colours.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Heat {
    /// Over the panel.
    pub title: String,
    /// What the columns are.
    pub x: String,
    /// What the rows are.
    pub y: String,
    /// The first row is the topmost one. At most 256 rows and columns.
    pub rows: Vec<Vec<f64>>,
    /// How numbers become colours.
    pub colours: Colours,
    /// What the lightest and the darkest colour stand for; from the data if it is not given, and then as far below zero
    /// as above it on a diverging scale. Numbers beyond it have the colour of its end, which says "≤" or "≥".
    pub range: Option<(f64, f64)>,
    /// A line before this column, and what is to its left and to its right.
    pub divider: Option<(usize, String, String)>,
}

/// How numbers become colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Colours {
    /// From blue over white, which is zero, to red.
    #[default]
    Diverging,
    /// From white to dark blue.
    Sequential,
}
