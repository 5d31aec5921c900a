//! What is trained, in PEFT's words and as a table.

use std::collections::BTreeMap;
use std::fmt;

/// Numbers of parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Parameters that the optimizer changes.
    pub trainable: i64,
    /// All parameters: the base, the adapters and PEFT's copies of `modules_to_save`.
    pub all: i64,
    /// Trained tensors by module, layer numbers folded into `*`.
    pub rows: Vec<ReportRow>,
}

/// The trained tensors of one kind of module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// `base_model.model.layers.*.ff.0.lora_A.weight`
    pub name: String,
    /// How many modules the row stands for.
    pub count: i64,
    /// Shape of one.
    pub shape: Vec<i64>,
    /// Parameters of all of them.
    pub trainable: i64,
}

impl Report {
    pub(crate) fn new(all: i64, trained: &[(String, Vec<i64>)]) -> Self {
        let mut rows: BTreeMap<(String, Vec<i64>), (i64, i64)> = BTreeMap::new();
        let mut trainable = 0i64;
        for (name, shape) in trained {
            let numel = shape.iter().fold(1, |n: i64, d| n.saturating_mul(*d));
            trainable = trainable.saturating_add(numel);
            let row = rows.entry((fold(name), shape.clone())).or_default();
            *row = (row.0.saturating_add(1), row.1.saturating_add(numel));
        }
        let rows = rows.into_iter().map(|((name, shape), (count, trainable))| ReportRow {
            name,
            count,
            shape,
            trainable,
        });
        Report { trainable, all, rows: rows.collect() }
    }

    /// Trained share of all parameters, in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.trainable as f64 / self.all.max(1) as f64
    }

    /// The rows as a table.
    pub fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["trained tensors", "modules", "shape", "parameters"]);
        for r in &self.rows {
            let cells = [r.name.clone(), r.count.to_string(), format!("{:?}", r.shape), commas(r.trainable)];
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        table.to_string()
    }
}

impl fmt::Display for Report {
    /// PEFT's line, to the letter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (t, a) = (commas(self.trainable), commas(self.all));
        write!(f, "trainable params: {t} || all params: {a} || trainable%: {:.4}", self.percent())
    }
}

/// `layers.3.ff` becomes `layers.*.ff`: a number counts as a layer's only when it is not the last part of a module
/// path such as `ff.0`, that is, when a name follows and names came before.
fn fold(name: &str) -> String {
    let mut seen = false;
    let parts = name.split('.').map(|part| {
        let number = !seen && part.parse::<u32>().is_ok();
        seen |= number;
        if number { "*" } else { part }
    });
    parts.collect::<Vec<_>>().join(".")
}

/// 1234567 as `1,234,567`.
pub fn commas(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && digits.len().saturating_sub(i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    if n < 0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peft_line_to_the_letter() {
        let trained = [("layers.0.ff.0.lora_A.weight".to_owned(), vec![4, 160]), ("b".to_owned(), vec![640])];
        let report = Report::new(30_020, &trained);
        assert_eq!(report.to_string(), "trainable params: 1,280 || all params: 30,020 || trainable%: 4.2638");
        assert_eq!(report.rows[1].name, "layers.*.ff.0.lora_A.weight");
        let table = report.table();
        assert!(table.contains("layers.*.ff.0.lora_A.weight") && table.contains("[4, 160]"), "{table}");
        assert_eq!(commas(-1_000), "-1,000");
    }
}
