//! The layout of a figure: its title, rows of panels with their titles and legends, and the note.

use crate::canvas::{Canvas, Rect, Side, sheet};
use crate::error::{Error, Result};
use crate::legend::Legend;
use crate::style::{FIGURE_TITLE, INK, PALE_INK, PANEL_TITLE, SMALL, line_height, wrap};
use crate::{Figure, Panel};

/// Around the figure.
const MARGIN: f64 = 16.0;
/// Between panels.
const GAP: f64 = 28.0;
/// Between a title or the note and the panels.
const AIR: f64 = 10.0;

/// A panel, how wide it is, and what stands above and below its plot.
struct Place<'a> {
    panel: &'a Panel,
    width: f64,
    title: Vec<String>,
    legend: Legend,
}

/// Panels side by side: titles, plots and legends begin at equal heights.
struct Row<'a> {
    places: Vec<Place<'a>>,
    title: f64,
    plot: f64,
    legend: f64,
}

pub(crate) fn svg(figure: &Figure) -> Result<String> {
    if figure.rows.is_empty() || figure.rows.iter().any(Vec::is_empty) {
        return Err(Error::data(format!("figure `{}` has a row without panels", figure.title)));
    }
    for panel in figure.rows.iter().flatten() {
        panel.check().map_err(|e| e.within(panel.title()))?;
    }
    let wide = |row: &Vec<Panel>| row.iter().map(Panel::width).sum::<f64>() + GAP * (row.len() as f64 - 1.0);
    let inner = figure.rows.iter().map(wide).fold(0.0, f64::max);
    let rows: Vec<Row> = figure.rows.iter().map(|row| Row::new(row, inner - wide(row))).collect();
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

/// The height of lines of text and of the air beside them.
fn block(lines: &[String], size: f64) -> f64 {
    if lines.is_empty() { 0.0 } else { lines.len() as f64 * line_height(size) + AIR }
}

impl<'a> Row<'a> {
    /// Panels share the width that is over in proportion to their own.
    fn new(panels: &'a [Panel], over: f64) -> Self {
        let own: f64 = panels.iter().map(Panel::width).sum();
        let place = |panel: &'a Panel| {
            let width = panel.width() * (1.0 + over / own);
            Place {
                panel,
                width,
                title: wrap(panel.title(), PANEL_TITLE, width),
                legend: panel.legend(width),
            }
        };
        let places: Vec<Place> = panels.iter().map(place).collect();
        let highest = |height: &dyn Fn(&Place) -> f64| places.iter().map(height).fold(0.0, f64::max);
        Row {
            title: highest(&|p| block(&p.title, PANEL_TITLE)),
            plot: highest(&|p| p.panel.height()),
            legend: highest(&|p| p.legend.height()),
            places,
        }
    }

    fn height(&self) -> f64 {
        self.title + self.plot + self.legend
    }

    fn draw(&self, canvas: &Canvas, top: f64) -> Result<()> {
        let mut left = MARGIN;
        for place in &self.places {
            let plot = top + self.title;
            let rest = Rect { left, right: left + place.width, top: plot, bottom: plot + self.plot };
            let title = (rest.centre().0, plot - AIR - (block(&place.title, PANEL_TITLE) - AIR) / 2.0);
            canvas.lines(&place.title, title, PANEL_TITLE, Side::Middle, INK)?;
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

    fn width(&self) -> f64 {
        match self {
            Panel::Bars(p) => p.width().clamp(620.0, 1100.0),
            Panel::Lines(_) | Panel::Points(_) => 620.0,
            Panel::Heat(_) => 440.0,
        }
    }

    /// The height without title and legend.
    fn height(&self) -> f64 {
        match self {
            Panel::Bars(_) | Panel::Lines(_) | Panel::Points(_) => 400.0,
            Panel::Heat(_) => 375.0,
        }
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
