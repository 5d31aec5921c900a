//! What a sweep found, over its seeds.

use crate::record::{Base, Figures};
use std::collections::BTreeMap;

/// One run as it ended.
#[derive(Debug)]
pub struct Run {
    pub method: &'static str,
    pub seed: i64,
    pub result: Result<Figures, String>,
}

/// All runs of a sweep.
#[derive(Debug, Default)]
pub struct Results {
    /// Seed by seed, the methods in the order that was asked for.
    pub runs: Vec<Run>,
    /// The bases of the synthetic task.
    pub bases: BTreeMap<i64, Base>,
}

/// Mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    pub mean: f64,
    /// Standard deviation of a sample, where there is more than one value.
    pub deviation: Option<f64>,
}

impl Mean {
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Self { mean, deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) }
    }
}

/// `80.1 ± 3.5` with as many digits as asked for, one if none are.
impl std::fmt::Display for Mean {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let text = match self.deviation {
            Some(d) => format!("{:.digits$} ± {d:.digits$}", self.mean),
            None => format!("{:.digits$}", self.mean),
        };
        f.pad_integral(true, "", &text)
    }
}

/// One method over its seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub method: &'static str,
    /// Runs that ended well.
    pub seeds: usize,
    pub trainable: i64,
    pub lr: f64,
    /// Test accuracy in percent.
    pub accuracy: Mean,
    /// At the end of training.
    pub loss: Mean,
    /// The losses of all training, with the step that each of them ends with.
    pub losses: Vec<(u64, Mean)>,
}

/// How one method's accuracy differs from another's on the same seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// In points of percent.
    pub mean: f64,
    /// Standard error of the mean, where there is more than one seed.
    pub error: Option<f64>,
    /// Seeds where the first one is better, of all.
    pub better: usize,
    pub seeds: usize,
}

/// The base without any training on the task.
pub const UNADAPTED: &str = "unadapted";

impl Results {
    /// The runs of a method that ended well.
    pub fn good(&self, method: &str) -> Vec<&Figures> {
        self.runs.iter().filter(|r| r.method == method).filter_map(|r| r.result.as_ref().ok()).collect()
    }

    /// Every method with a run that ended well, in the order of the sweep.
    pub fn summaries(&self) -> Vec<Summary> {
        let mut methods: Vec<&'static str> = Vec::new();
        for run in &self.runs {
            if !methods.contains(&run.method) {
                methods.push(run.method);
            }
        }
        methods.into_iter().filter_map(|method| self.summary(method)).collect()
    }

    fn summary(&self, method: &'static str) -> Option<Summary> {
        let figures = self.good(method);
        let first = figures.first()?;
        let over =
            |get: &dyn Fn(&Figures) -> f64| Mean::of(&figures.iter().map(|f| get(f)).collect::<Vec<_>>());
        let part = |(i, (step, _)): (usize, &(u64, f64))| {
            (*step, over(&|f| f.losses.get(i).map_or(f64::NAN, |(_, loss)| *loss)))
        };
        Some(Summary {
            method,
            seeds: figures.len(),
            trainable: first.trainable,
            lr: first.lr,
            accuracy: over(&|f| 100.0 * f.test_accuracy),
            loss: over(&|f| f.train_loss),
            losses: first.losses.iter().enumerate().map(part).collect(),
        })
    }

    /// Test accuracy of the bases in percent, before anything is adapted; none on text.
    pub fn unadapted(&self) -> Option<Mean> {
        let values: Vec<f64> = self.accuracies(UNADAPTED).into_values().collect();
        (!values.is_empty()).then(|| Mean::of(&values))
    }

    /// Test accuracy in percent by seed, of a method or of [`UNADAPTED`].
    pub fn accuracies(&self, method: &str) -> BTreeMap<i64, f64> {
        if method == UNADAPTED {
            return self.bases.iter().map(|(seed, base)| (*seed, 100.0 * base.unadapted)).collect();
        }
        let of_method = self.runs.iter().filter(|r| r.method == method);
        of_method.filter_map(|r| Some((r.seed, 100.0 * r.result.as_ref().ok()?.test_accuracy))).collect()
    }

    /// One method's accuracy minus another's, seed by seed; none without a seed that both have.
    pub fn difference(&self, one: &str, other: &str) -> Option<Difference> {
        let others = self.accuracies(other);
        let paired: Vec<f64> =
            self.accuracies(one).iter().filter_map(|(seed, a)| Some(a - others.get(seed)?)).collect();
        let Mean { mean, deviation } = Mean::of(&paired);
        (!paired.is_empty()).then(|| Difference {
            mean,
            error: deviation.map(|d| d / (paired.len() as f64).sqrt()),
            better: paired.iter().filter(|d| **d > 0.0).count(),
            seeds: paired.len(),
        })
    }
}

/// The middle value; 0 of none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Figures of a run that ended so.
    pub(crate) fn figures(trainable: i64, test_accuracy: f64, losses: &[f64]) -> Figures {
        Figures {
            trainable,
            all: trainable,
            steps: losses.len() as u64,
            step_ms: 1.0,
            tokens_per_s: 1.0,
            peak_bytes: 1,
            file_bytes: 1,
            train_loss: losses.last().copied().unwrap_or_default(),
            losses: losses.iter().enumerate().map(|(i, loss)| (i as u64 + 1, *loss)).collect(),
            test_accuracy,
            merge_error: None,
            config: serde_json::Value::Null,
            lr: 0.1,
        }
    }

    /// Two methods over two seeds, and one that fails on the second.
    pub(crate) fn results() -> Results {
        let run = |method, seed, result| Run { method, seed, result };
        Results {
            runs: vec![
                run("full", 0, Ok(figures(1000, 0.8, &[2.0, 0.5]))),
                run("lora", 0, Ok(figures(10, 0.75, &[2.0, 1.0]))),
                run("prompt", 0, Err("no".into())),
                run("full", 1, Ok(figures(1000, 0.6, &[4.0, 0.5]))),
                run("lora", 1, Ok(figures(10, 0.65, &[2.0, 1.0]))),
                run("prompt", 1, Ok(figures(5, 0.25, &[2.0, 1.5]))),
            ],
            bases: [(1, Base { parameters: 1000, own: 0.9, unadapted: 0.25 })].into(),
        }
    }

    #[test]
    fn deviation_is_of_a_sample() {
        assert_eq!(Mean::of(&[1.0, 3.0]), Mean { mean: 2.0, deviation: Some(2f64.sqrt()) });
        assert_eq!(Mean::of(&[5.0]), Mean { mean: 5.0, deviation: None });
        assert_eq!(Mean::of(&[1.0, 3.0]).to_string(), "2.0 ± 1.4");
        assert_eq!(format!("{:>8.2}", Mean::of(&[5.0])), "    5.00");
        assert_eq!(median(&mut [3.0, 1.0, 2.0, 10.0]), 2.5);
    }

    #[test]
    fn methods_are_summed_up_over_the_seeds_that_they_have() {
        let summaries = results().summaries();
        assert_eq!(summaries.iter().map(|s| s.method).collect::<Vec<_>>(), ["full", "lora", "prompt"]);
        assert_eq!(summaries[0].losses[0], (1, Mean { mean: 3.0, deviation: Some(2f64.sqrt()) }));
        assert_eq!(summaries[2].accuracy, Mean { mean: 25.0, deviation: None });
    }

    #[test]
    fn differences_are_paired_by_seed() {
        let results = results();
        let d = results.difference("full", "lora").unwrap();
        assert!(d.mean.abs() < 1e-12 && (d.error.unwrap() - 5.0).abs() < 1e-12, "{d:?}");
        assert_eq!((d.better, d.seeds), (1, 2));
        let d = results.difference("lora", "prompt").unwrap();
        assert_eq!((d.mean, d.error, d.seeds), (40.0, None, 1));
        assert_eq!(results.difference("full", UNADAPTED).unwrap().mean, 35.0);
        assert_eq!(results.difference("full", "vera"), None);
    }
}
