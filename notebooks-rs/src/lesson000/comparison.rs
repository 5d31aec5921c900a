//! Section 2.6: the lesson's table over random labels, and then a task that means something (`transfer.rs`).

use super::sections::{by_chance, fit, loss_curves, start};
use super::setup::TECHNIQUES;
use super::transfer::{task, transfer};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_bench::sweep::Sweep;
use peft_core::report::commas;

/// 2.6 Side-by-Side Comparison.
pub fn comparison(setting: Setting, page: &mut Page) -> Result<()> {
    compare(setting, &task(setting)?, page)
}

/// The comparison with a task of any size.
pub fn compare(setting: Setting, task: &Sweep, page: &mut Page) -> Result<()> {
    let mut to_see = random_labels(setting, page)?;
    to_see.extend(transfer(task, page)?);
    Ok(page.what_to_see(&to_see)?)
}

/// The lesson's table; returns what to see in it.
fn random_labels(setting: Setting, page: &mut Page) -> Result<Vec<String>> {
    let lesson = start(setting, page)?;
    let mut losses = Vec::new();
    for t in &TECHNIQUES {
        losses.push((t.title, fit(&lesson, t.key, page)?));
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
    let adapter = lesson.peft.report(&["adapter"])?;
    page.mistakes(&[
        by_chance(&lesson)?,
        Mistake::new(
            "two denominators",
            format!("the adapter's share is {:.2}% in its own section", adapter.percent()),
            format!(
                "and {:.2}% here: of base and method there, of the base alone here",
                100.0 * adapter.trainable as f64 / base as f64
            ),
        ),
    ])?;
    let curves = losses.iter().map(|(title, losses)| (*title, losses.as_slice()));
    page.figure(
        "comparison_random_labels",
        loss_curves("Five ways to learn random labels", curves.collect()),
    )?;
    Ok(vec![
        format!(
            "The lesson's accuracies rank nothing. What each method can fit is seen on the training rows: {}.",
            by_heart.collect::<Result<Vec<_>>>()?.join(", ")
        ),
        "The head is frozen in all but full fine-tuning.".into(),
    ])
}
