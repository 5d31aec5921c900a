//! The singular values of `ΔW = W_fine-tuned − W_pre-trained`, matrix by matrix.

use super::spectrum::{Spectrum, random_like};
use super::transfer::Transfer;
use super::{lines, percent, series};
use crate::Page;
use anyhow::Result;
use peft_plot::{Figure, Panel};

/// Shares of the energy `‖ΔW‖²`.
const SHARES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// A matrix of the model, and its change.
#[derive(Debug)]
pub struct Change {
    pub matrix: &'static str,
    /// out and in.
    pub size: [i64; 2],
    /// `‖ΔW‖ / ‖W‖`
    relative: f64,
    pub own: Spectrum,
    /// Of a random matrix of the same size and norm.
    pub random: Spectrum,
}

impl Change {
    pub fn of(transfer: &Transfer, matrix: &'static str) -> Result<Self> {
        let (w, change) = (transfer.weight(matrix)?, transfer.change(matrix)?);
        let relative = change.f_norm()?.f_div(&w.f_norm()?)?.f_double_value(&[])?;
        let random = Spectrum::of(&random_like(&change)?)?;
        Ok(Self { matrix, size: w.size2()?.into(), relative, own: Spectrum::of(&change)?, random })
    }

    /// `ff.0 (256 × 64)`
    fn title(&self) -> String {
        let [out, inp] = self.size;
        format!("{} ({out} × {inp})", self.matrix)
    }
}

/// How many directions each change has: a table, and its curves.
pub fn directions(changes: &[Change], page: &mut Page) -> Result<()> {
    let ranks = |s: &Spectrum| SHARES.map(|share| s.rank_for(share));
    let listed = |s: &Spectrum| ranks(s).map(|r| r.to_string()).join(" / ");
    let mut rows = Vec::new();
    for c in changes {
        for (of, spectrum) in [(c.matrix.to_owned(), &c.own), (format!("{}.random", c.matrix), &c.random)] {
            page.fact(&format!("{of}.singular_values"), spectrum.values.clone());
            page.fact(&format!("{of}.ranks"), ranks(spectrum).to_vec());
        }
        page.fact(&format!("{}.relative", c.matrix), c.relative);
        let full = c.own.values.len().to_string();
        rows.push(vec![c.title(), percent(c.relative), full, listed(&c.own), listed(&c.random)]);
    }
    let columns = ["matrix", "‖ΔW‖ of ‖W‖", "full rank", "of ΔW", "of a random matrix"];
    let shares = SHARES.map(|share| format!("{:.0}", 100.0 * share)).join(" / ");
    let title = format!("Ranks that keep {shares} % of ‖ΔW‖² after full fine-tuning");
    page.table(&title, columns, rows)?;
    page.figure("depth_rank_singular_values", values(changes))?;
    page.figure("depth_rank_energy", energies(changes))
}

fn values(changes: &[Change]) -> Figure {
    let numbered = |values: &[f64]| (1..).zip(values).map(|(i, s)| (f64::from(i), *s)).collect();
    let panel = |c: &Change| {
        let two = vec![series("ΔW", numbered(&c.own.values)), series("random", numbered(&c.random.values))];
        let mut plot = lines(&c.title(), "i", "σᵢ", two);
        plot.y.log = true;
        Panel::Lines(plot)
    };
    Figure {
        title: "Singular values of ΔW = W(fine-tuned) − W(pre-trained)".into(),
        rows: changes.chunks(2).map(|pair| pair.iter().map(panel).collect()).collect(),
        note: Some("Random: a matrix of the same size and norm, every element from one Gaussian.".into()),
    }
}

fn energies(changes: &[Change]) -> Figure {
    let curve = |name: &str, s: &Spectrum| {
        series(name, (0..=s.values.len()).map(|r| (r as f64, 100.0 * s.energy(r))).collect())
    };
    let mut curves: Vec<_> = changes.iter().map(|c| curve(c.matrix, &c.own)).collect();
    curves.extend(changes.last().map(|c| curve(&format!("random, as {}", c.matrix), &c.random)));
    let title = "How much of the change a rank keeps".into();
    let plot = lines("", "rank r", "kept (% of ‖ΔW‖²)", curves);
    Figure { title, rows: vec![vec![Panel::Lines(plot)]], note: None }
}
