//! The layout of a figure: its title, rows of panels with their titles and legends, and the note.

use crate::canvas::{Canvas, Rect, Side, sheet};
use crate::error::{Error, Result};
use crate::legend::Legend;
use crate::style::{FIGURE_TITLE, INK, PALE_INK, PANEL_TITLE, SMALL, line_height, longest_word, wrap};
use crate::{Figure, Panel};

/// Around the figure.
const MARGIN: f64 = 16.0;
/// Between panels.
const GAP: f64 = 28.0;
/// Between a title or the note and the panels.
const AIR: f64 = 10.0;
/// A figure is so wide at least, for its title and note, unless its plots are to be smaller.
const LEAST: f64 = 440.0;
/// Width and height of a plot, title and legend left out.
pub(crate) const PLOT: (f64, f64) = (620.0, 400.0);

/// A panel, how large it is, and what stands above and below its plot.
struct Place<'a> {
    panel: &'a Panel,
    width: f64,
    height: f64,
    head: f64,
    title: Vec<String>,
    legend: Legend,
}

/// Panels side by side: titles, plots and legends begin at equal heights.
struct Row<'a> {
    places: Vec<Place<'a>>,
    title: f64,
    head: f64,
    plot: f64,
    legend: f64,
}

pub(crate) fn svg(figure: &Figure, plot: (f64, f64)) -> Result<String> {
    if !(plot.0 >= 200.0 && plot.1 >= 120.0 && plot.0.max(plot.1) <= 10_000.0) {
        let (width, height) = plot;
        return Err(Error::data(format!(
            "a plot of {width} × {height}: it should have 200 × 120 at least, and 10,000 × 10,000 at most"
        )));
    }
    if figure.rows.is_empty() || figure.rows.iter().any(Vec::is_empty) {
        return Err(Error::data(format!("figure `{}` has a row without panels", figure.title)));
    }
    for panel in figure.rows.iter().flatten() {
        panel.check().map_err(|e| e.within(panel.title()))?;
    }
    let widths = widths(figure, plot)?;
    let wide = |row: &Vec<f64>| row.iter().sum::<f64>() + GAP * (row.len() as f64 - 1.0);
    let inner = widths.iter().map(wide).fold(LEAST.min(plot.0), f64::max);
    let rows = figure.rows.iter().zip(&widths).map(|(row, own)| Row::new(row, own, inner - wide(own), plot));
    let rows = rows.collect::<Result<Vec<Row>>>()?;
    let heads = wrap(&figure.title, FIGURE_TITLE, inner);
    let notes = wrap(figure.note.as_deref().unwrap_or_default(), SMALL, inner);
    let (above, below) = (block(&heads, FIGURE_TITLE), block(&notes, SMALL));
    let panels = rows.iter().map(Row::height).sum::<f64>() + GAP * (rows.len() as f64 - 1.0);

    let height = 2.0 * MARGIN + above + panels + below;
    sheet((inner + 2.0 * MARGIN).ceil(), height.ceil(), |canvas| {
        let head = (MARGIN + inner / 2.0, MARGIN + (above - AIR) / 2.0);
        canvas.lines(&heads, head, FIGURE_TITLE, Side::Middle, INK)?;
        let mut top = MARGIN + above;
        for row in &rows {
            row.draw(canvas, top)?;
            top += row.height() + GAP;
        }
        let note = (MARGIN, height - MARGIN - (below - AIR) / 2.0);
        canvas.lines(&notes, note, SMALL, Side::Left, PALE_INK)
    })
}

/// The widths of the panels in each row. Where all rows have as many panels, those below each other are equally wide.
fn widths(figure: &Figure, plot: (f64, f64)) -> Result<Vec<Vec<f64>>> {
    let own = |panel: &Panel| Ok(panel.size(plot)?.0.max(longest_word(panel.title(), PANEL_TITLE)));
    let row = |row: &Vec<Panel>| row.iter().map(own).collect();
    let mut widths = figure.rows.iter().map(row).collect::<Result<Vec<Vec<f64>>>>()?;
    let lengths = widths.iter().map(Vec::len);
    if lengths.clone().min() == lengths.max() {
        let columns =
            widths.iter().cloned().reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a.max(*b)).collect());
        widths.fill(columns.unwrap_or_default());
    }
    Ok(widths)
}

/// The height of lines of text and of the air beside them.
fn block(lines: &[String], size: f64) -> f64 {
    if lines.is_empty() { 0.0 } else { lines.len() as f64 * line_height(size) + AIR }
}

impl<'a> Row<'a> {
    /// Panels share the width that is over in proportion to their own.
    fn new(panels: &'a [Panel], widths: &[f64], over: f64, plot: (f64, f64)) -> Result<Self> {
        let all: f64 = widths.iter().sum();
        let place = |(panel, own): (&'a Panel, &f64)| {
            let width = own * (1.0 + over / all);
            let (title, legend) = (wrap(panel.title(), PANEL_TITLE, width), panel.legend(width));
            Ok(Place { panel, width, height: panel.size(plot)?.1, head: panel.head(), title, legend })
        };
        let places = panels.iter().zip(widths).map(place).collect::<Result<Vec<Place>>>()?;
        let highest = |height: &dyn Fn(&Place) -> f64| places.iter().map(height).fold(0.0, f64::max);
        Ok(Row {
            title: highest(&|p| block(&p.title, PANEL_TITLE)),
            head: highest(&|p| p.head),
            plot: highest(&|p| p.height - p.head),
            legend: highest(&|p| p.legend.height()),
            places,
        })
    }

    fn height(&self) -> f64 {
        self.title + self.head + self.plot + self.legend
    }

    fn draw(&self, canvas: &Canvas, top: f64) -> Result<()> {
        let mut left = MARGIN;
        for place in &self.places {
            let plot = top + self.title;
            let title =
                (left + place.width / 2.0, plot - AIR - (block(&place.title, PANEL_TITLE) - AIR) / 2.0);
            canvas.lines(&place.title, title, PANEL_TITLE, Side::Middle, INK)?;
            let (top, bottom) = (plot + self.head - place.head, plot + self.head + self.plot);
            let rest = Rect { left, right: left + place.width, top, bottom };
            place.panel.draw(canvas, rest).map_err(|e| e.within(place.panel.title()))?;
            place.legend.draw(canvas, Rect { top: rest.bottom, ..rest })?;
            left += place.width + GAP;
        }
        Ok(())
    }
}

impl Panel {
    fn title(&self) -> &str {
        match self {
            Panel::Bars(p) => &p.title,
            Panel::Lines(p) => &p.title,
            Panel::Points(p) => &p.title,
            Panel::Heat(p) => &p.title,
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Panel::Bars(p) => p.check(),
            Panel::Lines(p) => p.check(),
            Panel::Points(p) => p.check(),
            Panel::Heat(p) => p.check(),
        }
    }

    /// Width and height without title and legend; `plot` is that of a usual one.
    fn size(&self, plot: (f64, f64)) -> Result<(f64, f64)> {
        Ok(match self {
            Panel::Bars(p) => (p.width().min(1100.0).max(plot.0), plot.1),
            Panel::Lines(_) | Panel::Points(_) => plot,
            Panel::Heat(p) => p.size()?,
        })
    }

    /// What of the height is words above the plot.
    fn head(&self) -> f64 {
        if let Panel::Heat(p) = self { p.head() } else { 0.0 }
    }

    fn legend(&self, width: f64) -> Legend {
        match self {
            Panel::Bars(p) => p.legend(width),
            Panel::Lines(p) => p.legend(width),
            Panel::Points(p) => p.legend(width),
            Panel::Heat(_) => Legend::new([], width),
        }
    }

    fn draw(&self, canvas: &Canvas, rest: Rect) -> Result<()> {
        match self {
            Panel::Bars(p) => p.draw(canvas, rest),
            Panel::Lines(p) => p.draw(canvas, rest),
            Panel::Points(p) => p.draw(canvas, rest),
            Panel::Heat(p) => p.draw(canvas, rest),
        }
    }
}
