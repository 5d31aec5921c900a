//! Section 2.6.

use super::sections::{chance, fit, start};
use super::setup::TECHNIQUES;
use crate::{Page, Setting};
use anyhow::Result;
use peft_core::commas;

/// 2.6 Side-by-Side Comparison.
pub fn comparison(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    for t in &TECHNIQUES {
        fit(&lesson, t.key, page)?;
    }
    let base = lesson.peft.report(&[])?.all;
    page.line(format!("{:<18} {:>10} {:>10} {:>10}", "Method", "Trainable", "% of base", "Accuracy"))?;
    page.line("-".repeat(52))?;
    let full_first = TECHNIQUES.iter().rev().take(1).chain(&TECHNIQUES[..TECHNIQUES.len() - 1]);
    for t in full_first {
        let trainable = lesson.peft.report(&[t.key])?.trainable;
        let percent = 100.0 * trainable as f64 / base as f64;
        let accuracy = lesson.accuracy(&[t.key])?;
        page.line(format!("{:<18} {:>10} {percent:>9.2}% {accuracy:>8.2}%", t.title, commas(trainable)))?;
    }
    let by_heart = TECHNIQUES.iter().map(|t| {
        let (right, all) = lesson.correct(&[t.key], &lesson.train)?;
        Ok(format!("{} {right}/{all}", t.title))
    });
    page.what_to_see(&[
        chance(&lesson)?,
        format!(
            "So the accuracies rank nothing. What each method can fit is seen on the training rows: {}.",
            by_heart.collect::<Result<Vec<_>>>()?.join(", ")
        ),
        "Percentages here are of the base alone; the sections before divide by base and method together. The head is \
         frozen in all but full fine-tuning."
            .into(),
        "A task on which the methods separate: `cargo run --release -p peft-bench`.".into(),
    ])?;
    Ok(())
}
