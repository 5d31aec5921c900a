//! What there is to say of all rows.

use serde::Serialize;
use std::fmt::{Display, Formatter};

/// All rows of a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    rows: usize,
    tokens: usize,
    /// How many tokens count in the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    learned: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lengths: Option<Lengths>,
    /// How many rows were cut.
    cut: usize,
    /// How many rows of the file are left out, as the cut leaves nothing to learn of them.
    dropped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    packed: Option<Packed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Labels>,
}

/// Tokens of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Lengths {
    min: usize,
    median: usize,
    p95: usize,
    max: usize,
}

/// Rows of several texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Packed {
    texts: usize,
    /// The share of all rows that is tokens.
    filled: f64,
}

/// What the rows are labelled with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// Classes, with how many rows each has.
    Classes(Vec<(String, usize)>),
    Numbers {
        min: f64,
        mean: f64,
        max: f64,
    },
}

impl Labels {
    pub fn numbers(all: &[f32]) -> Self {
        let all = || all.iter().map(|number| f64::from(*number));
        let mean = all().sum::<f64>() / all().count().max(1) as f64;
        Self::Numbers {
            min: all().fold(f64::INFINITY, f64::min),
            mean,
            max: all().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

impl Summary {
    /// Of rows of token ids.
    pub fn new(rows: &[Vec<i64>]) -> Self {
        let mut lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        lengths.sort_unstable();
        // The least length that a share of the rows does not exceed.
        let at = |percent: usize| lengths.get((lengths.len() * percent).div_ceil(100).max(1) - 1).copied();
        let measured = at(0).zip(at(50)).zip(at(95).zip(at(100)));
        Self {
            rows: rows.len(),
            tokens: lengths.iter().sum(),
            learned: None,
            lengths: measured.map(|((min, median), (p95, max))| Lengths { min, median, p95, max }),
            cut: 0,
            dropped: 0,
            packed: None,
            labels: None,
        }
    }

    pub fn cut(self, cut: usize) -> Self {
        Self { cut, ..self }
    }

    pub fn learned(self, tokens: usize) -> Self {
        Self { learned: Some(tokens), ..self }
    }

    pub fn left_out(self, dropped: usize) -> Self {
        Self { dropped, ..self }
    }

    /// With how many texts are in rows of at most how many tokens.
    pub fn packed(self, packed: Option<(usize, usize)>) -> Self {
        let packed = packed.map(|(texts, length)| {
            let room = (self.rows * length).max(1);
            Packed { texts, filled: self.tokens as f64 / room as f64 }
        });
        Self { packed, ..self }
    }

    pub fn labelled(self, labels: Labels) -> Self {
        Self { labels: Some(labels), ..self }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "rows     {}", self.rows)?;
        if let Some(Packed { texts, filled }) = self.packed {
            write!(f, ", of {texts} texts, {:.1} % full", 100.0 * filled)?;
        }
        write!(f, "\ntokens   {}", self.tokens)?;
        if let Some(learned) = self.learned {
            let share = 100.0 * learned as f64 / self.tokens.max(1) as f64;
            write!(f, ", {learned} of them learned ({share:.1} %)")?;
        }
        if let Some(Lengths { min, median, p95, max }) = self.lengths {
            write!(f, "\nlengths  {min} to {max}, median {median}, 95 % up to {p95}")?;
        }
        write!(f, "\ncut      {}", self.cut)?;
        if self.dropped > 0 {
            write!(f, ", and {} left out", self.dropped)?;
        }
        match &self.labels {
            Some(Labels::Classes(classes)) => {
                const MOST: usize = 12;
                let shown = classes.iter().take(MOST).map(|(name, rows)| format!("{name} {rows}"));
                write!(f, "\nlabels   {}", shown.collect::<Vec<_>>().join(", "))?;
                if classes.len() > MOST {
                    write!(f, ", and {} more classes", classes.len() - MOST)?;
                }
            }
            Some(Labels::Numbers { min, mean, max }) => {
                write!(f, "\nlabels   {min} to {max}, mean {mean:.4}")?;
            }
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_by_rank() {
        let rows: Vec<Vec<i64>> = (1..=40).rev().map(|n| vec![0; n]).collect();
        let summary = Summary::new(&rows).learned(82).cut(2).left_out(1);
        let expected = "rows     40\ntokens   820, 82 of them learned (10.0 %)\nlengths  1 to 40, median 20, 95 % up to \
                        38\ncut      2, and 1 left out";
        assert_eq!(summary.to_string(), expected);
        assert!(Summary::new(&[]).lengths.is_none());
        let packed = Summary::new(&[vec![0; 6], vec![0; 9]]).packed(Some((4, 10)));
        assert!(packed.to_string().starts_with("rows     2, of 4 texts, 75.0 % full\n"), "{packed}");
    }

    #[test]
    fn labels_of_both_kinds() {
        let classes = (0..14).map(|n| (format!("c{n}"), n)).collect();
        let text = Summary::new(&[vec![1]]).labelled(Labels::Classes(classes)).to_string();
        assert!(text.ends_with("c11 11, and 2 more classes"), "{text}");
        let text = Summary::new(&[vec![1]]).labelled(Labels::numbers(&[1.0, -2.5, 3.0])).to_string();
        assert!(text.ends_with("labels   -2.5 to 3, mean 0.5000"), "{text}");
    }
}
