//! 1.2 PEFT Method Classification: every entry of the lesson's box, trained over one frozen base.

use super::entries::{ADDITIVE, ENTRIES, R, REPARAMETERISED, SELECTIVE, STEPS};
use super::task::{Task, open_gates, ranks};
use crate::measure::row;
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::report::commas;
use peft_plot::{Axis, Figure, Panel, Point, Points};

/// 1.2 PEFT Method Classification.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let mut task = Task::new(setting)?;
    let before = task.bits()?;
    let bar = page.progress("methods", ENTRIES.len() as u64);
    let (mut rows, mut points, mut merging) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &ENTRIES {
        let found = task.fit(entry)?;
        let merges = if found.merges { "yes" } else { "no" };
        let stays = match (found.merges, entry.quantised) {
            (true, false) => "nothing",
            (true, true) => "dense weights",
            (false, _) => entry.stays,
        };
        merging.extend(found.merges.then_some(entry.kind));
        let [first, last] = found.losses;
        rows.push(row([
            &entry.kind,
            &entry.name,
            &commas(found.report.trainable),
            &format!("{:.2}", 100.0 * found.report.trainable as f64 / task.parameters() as f64),
            &format!("{first:.3}"),
            &format!("{last:.3}"),
            &merges,
            &stays,
        ]));
        page.fact(&format!("{}.trainable", entry.name), found.report.trainable);
        page.fact(&format!("{}.losses", entry.name), found.losses.to_vec());
        let label = entry.name.to_owned();
        points.push(Point { label, x: found.report.trainable as f64, y: last, ..Point::default() });
        bar.inc(1);
    }
    bar.finish_and_clear();
    page.line(format!("{:<20} {:<16} {:>10}", "Kind", "Method", "Trainable"))?;
    page.line("-".repeat(48))?;
    for cells in &rows {
        page.line(format!("{:<20} {:<16} {:>10}", cells[0], cells[1], cells[2]))?;
    }
    page.table(
        &format!(
            "One base of {} parameters, {STEPS} steps of each method on a new task",
            commas(task.parameters())
        ),
        ["kind", "method", "trainable", "% of base", "loss before", "after", "merges", "adds at inference"],
        rows,
    )?;
    let same = before.iter().zip(task.bits()?).filter(|(a, b)| *a == b).count();
    page.fact("base.tensors", before.len());
    page.fact("base.unchanged", same);

    let kept = ranks(task.peft(false), "AdaLoRA")?;
    let (all_ranks, left): (i64, i64) = (2 * 2 * R, kept.iter().sum());
    let gates = open_gates(task.peft(false), "Diff Pruning")?;
    let stage = task.second_stage()?;
    page.fact("adalora", kept.clone());
    page.fact("diff.gates", gates.to_vec());
    page.fact("diff.pruned", vec![stage.kept as f64, stage.loss]);
    let each = kept.iter().map(i64::to_string).collect::<Vec<_>>().join(" and ");
    let count = |name: &str| commas(page.facts()[&format!("{name}.trainable")].as_i64().unwrap_or_default());
    let merged = |kind: &[&str]| merging.iter().filter(|m| kind.contains(*m)).count();
    let all = |kinds: &[&str]| ENTRIES.iter().filter(|e| kinds.contains(&e.kind)).count();
    let others = [REPARAMETERISED, SELECTIVE];
    let mistakes = [
        Mistake::new(
            "The box has QLoRA beside LoRA, as a method",
            format!("its trainable part is {} parameters", count("QLoRA")),
            format!(
                "it is LoRA, {} parameters, over a base in 4 bits: a way to store what is frozen",
                count("LoRA")
            ),
        ),
        Mistake::new(
            "IA³ stands with what is added to the path of every token",
            format!(
                "{} of the {} additive entries cannot be merged",
                all(&[ADDITIVE]) - merged(&[ADDITIVE]),
                all(&[ADDITIVE])
            ),
            format!(
                "IA³ multiplies, and folds into the weights as {} of the {} entries of the other two columns do",
                merged(&others),
                all(&others)
            ),
        ),
    ];
    page.fact("merging", merging.len());
    page.mistakes(&mistakes)?;
    page.figure("unified_taxonomy", figure(points))?;
    page.what_to_see(&[
        format!("The base is the same for all: {same} of {} tensors have their bits after all training.", before.len()),
        format!(
            "AdaLoRA began with {all_ranks} singular values in two layers and kept {left}: rank {each}."
        ),
        format!(
            "Diff pruning began with {} open gates and has {} left; the second stage keeps those differences, as places and \
             values, at a loss of {:.3}.",
            commas(gates[0]),
            commas(gates[1]),
            stage.loss
        ),
        format!(
            "{STEPS} steps show that each method learns and rank none of them. Where they differ on purpose: \
             `cargo run --release -p peft-bench`."
        ),
    ])?;
    Ok(())
}

fn figure(points: Vec<Point>) -> Figure {
    let panel = Points {
        title: format!("Loss after {STEPS} steps"),
        x: Axis { label: "trainable parameters".into(), log: true, range: None },
        y: Axis { label: "loss (nats)".into(), ..Axis::default() },
        points,
        area: None,
    };
    Figure {
        title: "The classification, run".into(),
        rows: vec![vec![Panel::Points(panel)]],
        note: Some("One small transformer and one task; not a ranking.".into()),
    }
}
