//! The tables.

use crate::cases::Case;
use crate::record::Figures;
use crate::results::{Mean, Run, median};
use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width, presets::UTF8_FULL_CONDENSED,
};
use peft_core::report::commas;

fn table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The methods with their settings.
pub fn list(cases: &[Case]) -> Table {
    let mut out = table(&["method", "what it is", "lr, synthetic", "lr, text"], 2);
    for c in cases {
        let (synthetic, text) = (format!("{:.0e}", c.lr.0), format!("{:.0e}", c.lr.1));
        out.add_row([c.name, c.about, &synthetic, &text]);
    }
    out
}

/// One row a method, over its seeds; runs that failed are rows of their own.
pub fn results(cases: &[&'static Case], runs: &[Run]) -> Table {
    let header = [
        "method",
        "trainable",
        "%",
        "steps",
        "step ms",
        "tokens/s",
        "peak MB",
        "file kB",
        "train loss",
        "test accuracy %",
        "merge error",
        "runs",
    ];
    let mut out = table(&header, 1);
    // Why a run failed may be a long story.
    out.set_content_arrangement(ContentArrangement::Dynamic).set_width(200);
    if let Some(last) = out.column_mut(header.len() - 1) {
        last.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(60)));
        last.set_cell_alignment(CellAlignment::Left);
    }
    for case in cases {
        let of_case = || runs.iter().filter(|r| r.method == case.name);
        let good: Vec<&Figures> = of_case().filter_map(|r| r.result.as_ref().ok()).collect();
        if !good.is_empty() {
            out.add_row(row(case.name, &good));
        }
        for (seed, why) in of_case().filter_map(|r| r.result.as_ref().err().map(|why| (r.seed, why))) {
            let mut cells = vec![String::from("-"); header.len()];
            cells[0] = case.name.to_owned();
            cells[header.len() - 1] = format!("seed {seed} failed: {why}");
            out.add_row(cells);
        }
    }
    out
}

fn row(name: &str, f: &[&Figures]) -> Row {
    let middle = |get: fn(&Figures) -> f64| median(&mut f.iter().map(|f| get(f)).collect::<Vec<_>>());
    let over = |get: fn(&Figures) -> f64| Mean::of(&f.iter().map(|f| get(f)).collect::<Vec<_>>());
    let peak = f.iter().map(|f| f.peak_bytes).max().unwrap_or_default();
    let merge = f
        .iter()
        .filter_map(|f| f.merge_error)
        .fold(None, |worst: Option<f64>, e| Some(worst.map_or(e, |w| w.max(e))));
    let first = f[0];
    Row::from([
        name.to_owned(),
        commas(first.trainable),
        format!("{:.3}", 100.0 * first.trainable as f64 / first.all as f64),
        first.steps.to_string(),
        format!("{:.2}", middle(|f| f.step_ms)),
        commas(middle(|f| f.tokens_per_s).round() as i64),
        format!("{:.1}", peak as f64 / 1e6),
        format!("{:.1}", first.file_bytes as f64 / 1e3),
        format!("{:.3}", over(|f| f.train_loss).mean),
        over(|f| 100.0 * f.test_accuracy).to_string(),
        merge.map_or("cannot merge".into(), |e| format!("{e:.0e}")),
        format!("{} ok", f.len()),
    ])
}
