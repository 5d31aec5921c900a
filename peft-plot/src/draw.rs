//! The layout of a figure: its title, rows of panels, and the note.

use crate::canvas::{Canvas, Rect, Side, sheet};
use crate::error::{Error, Result};
use crate::frame::title;
use crate::style::{FIGURE_TITLE, INK, PALE_INK, SMALL, line_height, wrap};
use crate::{Figure, Panel};

/// Around the figure and between its panels.
const MARGIN: f64 = 16.0;
const GAP: f64 = 28.0;

pub(crate) fn svg(figure: &Figure) -> Result<String> {
    if figure.rows.is_empty() || figure.rows.iter().any(Vec::is_empty) {
        return Err(Error::data(format!("figure `{}` has a row without panels", figure.title)));
    }
    let wide = |row: &Vec<Panel>| row.iter().map(Panel::width).sum::<f64>() + GAP * (row.len() as f64 - 1.0);
    let inner = figure.rows.iter().map(wide).fold(0.0, f64::max);
    let heads = wrap(&figure.title, FIGURE_TITLE, inner);
    let notes = wrap(figure.note.as_deref().unwrap_or_default(), SMALL, inner);
    let above = block(heads.len(), FIGURE_TITLE);
    let below = block(notes.len(), SMALL);

    // Panels of a row share its width in proportion.
    let mut places = Vec::new();
    let mut y = MARGIN + above;
    for row in &figure.rows {
        let stretch = (inner - GAP * (row.len() as f64 - 1.0)) / row.iter().map(Panel::width).sum::<f64>();
        let height = row.iter().map(|p| p.height(p.width() * stretch)).fold(0.0, f64::max);
        let mut x = MARGIN;
        for panel in row {
            let width = panel.width() * stretch;
            places.push((panel, Rect { left: x, top: y, right: x + width, bottom: y + height }));
            x += width + GAP;
        }
        y += height + GAP;
    }
    let bottom = y - GAP;

    sheet((inner + 2.0 * MARGIN).ceil(), (bottom + below + MARGIN).ceil(), |canvas| {
        let middle = (MARGIN + inner / 2.0, MARGIN + (above - 12.0) / 2.0);
        canvas.lines(&heads, middle, FIGURE_TITLE, Side::Middle, INK)?;
        for (panel, place) in places {
            panel.draw(canvas, place).map_err(|e| e.within(panel.title()))?;
        }
        let note = (MARGIN, bottom + 12.0 + (below - 12.0) / 2.0);
        canvas.lines(&notes, note, SMALL, Side::Left, PALE_INK)
    })
}

/// The height of some lines of text and the air beside them.
fn block(lines: usize, size: f64) -> f64 {
    if lines == 0 { 0.0 } else { lines as f64 * line_height(size) + 12.0 }
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

    fn width(&self) -> f64 {
        match self {
            Panel::Bars(p) => p.width().clamp(620.0, 1240.0),
            Panel::Lines(_) | Panel::Points(_) => 620.0,
            Panel::Heat(_) => 440.0,
        }
    }

    /// The plot has the same height whatever the size of its legend.
    fn height(&self, width: f64) -> f64 {
        let legend = match self {
            Panel::Bars(p) => p.legend(width).height(),
            Panel::Lines(p) => p.legend(width).height(),
            Panel::Points(p) => p.legend(width).height(),
            Panel::Heat(_) => 0.0,
        };
        430.0 + legend
    }

    fn draw(&self, canvas: &Canvas, place: Rect) -> Result<()> {
        let rest = title(canvas, place, self.title())?;
        match self {
            Panel::Bars(p) => p.draw(canvas, rest),
            Panel::Lines(p) => p.draw(canvas, rest),
            Panel::Points(p) => p.draw(canvas, rest),
            Panel::Heat(p) => p.draw(canvas, rest),
        }
    }
}
