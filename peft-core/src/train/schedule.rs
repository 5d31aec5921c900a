//! How the learning rate changes from step to step.

use crate::error::{Error, Result};

/// How the learning rate changes during a training: each step's is the trainer's learning rate, the peak, times the factor
/// of the schedule, which is between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// The peak learning rate at every step.
    Constant,
    /// The learning rate rises from 0 to its peak in equal steps, and stays there: transformers' `constant_with_warmup`.
    Rising {
        /// How many steps it rises; 0 to begin at the peak.
        warmup: u64,
    },
    /// The learning rate rises from 0 to its peak in equal steps, and then falls to 0: transformers' `linear`.
    Linear {
        /// How many steps it rises; 0 to begin at the peak.
        warmup: u64,
        /// After how many steps, those of the rise included, it is 0.
        total: u64,
    },
    /// The learning rate rises from 0 to its peak in equal steps, and then falls to 0 along half a cosine: transformers'
    /// `cosine`. Behind the rise its factor is `½ (1 + cos(π · (step − warmup) / (total − warmup)))`.
    Cosine {
        /// How many steps it rises; 0 to begin at the peak.
        warmup: u64,
        /// After how many steps, those of the rise included, it is 0.
        total: u64,
    },
}

impl Schedule {
    /// Refuses schedules that never come to the peak, or have no steps.
    pub(super) fn check(self) -> Result<()> {
        let wrong = |field: &str, message: String| Err(Error::config("schedule", field, message));
        match self {
            Schedule::Linear { total: 0, .. } | Schedule::Cosine { total: 0, .. } => {
                wrong("total", "is 0: there is no step to train in".into())
            }
            Schedule::Linear { warmup, total } | Schedule::Cosine { warmup, total } if warmup > total => {
                let message = format!("is {warmup} steps of {total} in all: the peak would never be reached");
                wrong("warmup", message)
            }
            _ => Ok(()),
        }
    }

    /// What the peak learning rate is multiplied with at `step`; the first step is 0.
    pub fn factor(self, step: u64) -> f64 {
        let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
        match self {
            Schedule::Constant => 1.0,
            Schedule::Rising { warmup }
            | Schedule::Linear { warmup, .. }
            | Schedule::Cosine { warmup, .. }
                if step < warmup =>
            {
                ratio(step, warmup)
            }
            Schedule::Rising { .. } => 1.0,
            Schedule::Linear { warmup, total } => {
                ratio(total.saturating_sub(step), total.saturating_sub(warmup))
            }
            Schedule::Cosine { warmup, total } => {
                let (gone, all) = (step.saturating_sub(warmup), total.saturating_sub(warmup));
                // Multiplied first, and divided then: PyTorch's order, whose bits the lessons have.
                0.5 * (1.0 + (std::f64::consts::PI * gone as f64 / all.max(1) as f64).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_without_a_peak() {
        let all = [
            (Schedule::Linear { warmup: 7, total: 6 }, "warmup: is 7 steps of 6"),
            (Schedule::Linear { warmup: 0, total: 0 }, "total: is 0"),
            (Schedule::Cosine { warmup: 0, total: 0 }, "total: is 0"),
            (Schedule::Cosine { warmup: 3, total: 2 }, "warmup: is 3 steps of 2"),
        ];
        for (schedule, part) in all {
            let error = schedule.check().expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        Schedule::Linear { warmup: 6, total: 6 }.check().expect("up alone");
        Schedule::Constant.check().expect("constant");
    }

    #[test]
    fn linear_with_warmup() {
        let s = Schedule::Linear { warmup: 2, total: 6 };
        let factors: Vec<f64> = (0..8).map(|i| s.factor(i)).collect();
        assert_eq!(factors, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
        let cosine = Schedule::Cosine { warmup: 0, total: 4 };
        assert_eq!(cosine.factor(0), 1.0);
        assert!((cosine.factor(2) - 0.5).abs() < 1e-12);
    }

    /// What transformers' `get_cosine_schedule_with_warmup(2, 6)` and `get_constant_schedule_with_warmup(2)` give.
    #[test]
    fn others_with_warmup() {
        let s = Schedule::Cosine { warmup: 2, total: 6 };
        let found = [0, 1, 2, 3, 4, 5, 6].map(|i| s.factor(i));
        let half = std::f64::consts::FRAC_1_SQRT_2 / 2.0;
        let expected = [0.0, 0.5, 1.0, 0.5 + half, 0.5, 0.5 - half, 0.0];
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12), "{found:?}");
        let s = Schedule::Rising { warmup: 2 };
        assert_eq!([0, 1, 2, 9].map(|i| s.factor(i)), [0.0, 0.5, 1.0, 1.0]);
    }
}
