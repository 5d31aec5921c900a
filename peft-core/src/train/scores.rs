//! What an evaluation counts, and what that comes to.

use std::collections::{BTreeMap, BTreeSet};

/// What an evaluation has counted so far; a [`Task`](super::Task) adds to it.
#[derive(Debug, Clone, Default)]
pub struct Scores {
    loss: f64,
    weight: f64,
    right_tokens: i64,
    tokens: i64,
    confusion: BTreeMap<(i64, i64), u64>,
    numbers: Vec<(f64, f64)>,
}

/// How good a model is on data.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean loss of all labels that count.
    pub loss: f64,
    /// How many those are: tokens, or rows.
    pub counted: f64,
    /// `perplexity` and `token_accuracy` of next tokens; `accuracy` and `macro_f1` of classes; `mse`, `mae` and `pearson` of
    /// numbers.
    pub metrics: BTreeMap<&'static str, f64>,
    /// Of classes: how often the first one was meant and the second one found.
    pub confusion: BTreeMap<(i64, i64), u64>,
}

impl Scores {
    /// Adds a mean loss, and how many labels it is the mean of.
    pub(super) fn loss(&mut self, loss: f64, weight: f64) {
        self.loss += weight * loss;
        self.weight += weight;
    }

    /// Adds tokens, `right` of which were predicted.
    pub fn tokens(&mut self, right: i64, all: i64) {
        self.right_tokens = self.right_tokens.saturating_add(right);
        self.tokens = self.tokens.saturating_add(all);
    }

    /// Adds rows, each with its class and the class that was found.
    pub fn classes(&mut self, rows: impl IntoIterator<Item = (i64, i64)>) {
        for row in rows {
            let count = self.confusion.entry(row).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Adds rows, each with its number and the number that was found.
    pub fn numbers(&mut self, rows: impl IntoIterator<Item = (f64, f64)>) {
        self.numbers.extend(rows);
    }

    /// What it all comes to; `None` where no label counted.
    pub(super) fn finish(self) -> Option<Evaluation> {
        if self.weight == 0.0 {
            return None;
        }
        let loss = self.loss / self.weight;
        let mut metrics = BTreeMap::new();
        if self.tokens > 0 {
            metrics.insert("perplexity", loss.exp());
            metrics.insert("token_accuracy", self.right_tokens as f64 / self.tokens as f64);
        }
        let all: u64 = self.confusion.values().sum();
        if all > 0 {
            let right: u64 = self.confusion.iter().filter(|((e, f), _)| e == f).map(|(_, n)| n).sum();
            metrics.insert("accuracy", right as f64 / all as f64);
            metrics.insert("macro_f1", macro_f1(&self.confusion));
        }
        if !self.numbers.is_empty() {
            let mean = |of: &dyn Fn(&(f64, f64)) -> f64| {
                self.numbers.iter().map(of).sum::<f64>() / self.numbers.len() as f64
            };
            metrics.insert("mse", mean(&|(e, f)| (e - f).powi(2)));
            metrics.insert("mae", mean(&|(e, f)| (e - f).abs()));
            let (e, f) = (mean(&|(e, _)| *e), mean(&|(_, f)| *f));
            let (ee, ff) = (mean(&|(x, _)| (x - e).powi(2)), mean(&|(_, y)| (y - f).powi(2)));
            // Of numbers that are all alike there is none.
            if ee > 0.0 && ff > 0.0 {
                metrics.insert("pearson", mean(&|(x, y)| (x - e) * (y - f)) / (ee * ff).sqrt());
            }
        }
        Some(Evaluation { loss, counted: self.weight, metrics, confusion: self.confusion })
    }
}

/// The mean over all classes that are meant or found of `2 · right / (meant + found)`, as scikit-learn has it.
fn macro_f1(confusion: &BTreeMap<(i64, i64), u64>) -> f64 {
    let classes: BTreeSet<i64> = confusion.keys().flat_map(|(expected, found)| [*expected, *found]).collect();
    let f1 = |class: &i64| {
        let count = |of: &dyn Fn(&(i64, i64)) -> bool| -> u64 {
            confusion.iter().filter(|(cell, _)| of(cell)).map(|(_, n)| n).sum()
        };
        let (meant, found) = (count(&|(e, _)| e == class), count(&|(_, f)| f == class));
        let right = confusion.get(&(*class, *class)).copied().unwrap_or_default();
        2.0 * right as f64 / (meant.saturating_add(found)) as f64
    };
    classes.iter().map(f1).sum::<f64>() / classes.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(i64, i64)]) -> BTreeMap<&'static str, f64> {
        let mut scores = Scores { weight: 1.0, ..Scores::default() };
        scores.classes(rows.iter().copied());
        scores.finish().unwrap().metrics
    }

    /// scikit-learn's `f1_score(.., average="macro")` of these.
    #[test]
    fn accuracy_and_f1() {
        let found = of(&[(0, 0), (0, 1), (1, 1), (1, 1), (2, 0), (2, 2)]);
        assert!((found["accuracy"] - 4.0 / 6.0).abs() < 1e-12);
        let f1 = (2.0 / 4.0 + 4.0 / 5.0 + 2.0 / 3.0) / 3.0;
        assert!((found["macro_f1"] - f1).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn numbers() {
        let mut scores = Scores { weight: 3.0, ..Scores::default() };
        scores.numbers([(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)]);
        let found = scores.finish().unwrap().metrics;
        assert!((found["mse"] - 14.0 / 3.0).abs() < 1e-12 && (found["mae"] - 2.0).abs() < 1e-12);
        assert!((found["pearson"] - 1.0).abs() < 1e-12);
    }
}
