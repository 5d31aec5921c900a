//! 1 The Background: is the change that fine-tuning makes of low rank? Measured, in the two ways that there are: singular
//! values of `ΔW = W_fine-tuned − W_original`, and what LoRAs of different rank have in common.

use super::change::{Change, directions};
use super::subspaces::subspaces;
use super::transfer::{FULL, FULL_LR, LORA_LR, MATRICES, Start, Steps, Transfer};
use super::{lines, percent, series};
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::report::commas;
use peft_plot::{Figure, Panel};

/// Short trainings; longer ones give better models and the same picture.
const STEPS: Steps = Steps { pretrain: 500, tune: 150 };
/// Ranks to which the full change is cut.
const CUTS: [i64; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
/// Ranks at which a LoRA is trained.
const LORAS: [i64; 5] = [1, 2, 4, 8, 16];
/// The two LoRAs whose subspaces are compared: the paper has 8 and 64, of 12,288 dimensions.
const COMPARED: [i64; 2] = [4, 16];

/// Accuracy at a rank: of the full change cut to it, and of a LoRA trained at it.
struct AtRank {
    r: i64,
    kept: f64,
    cut: f64,
    lora: Option<(f64, i64)>,
}

/// 1 The Background.
pub fn rank(setting: Setting, page: &mut Page) -> Result<()> {
    let mut transfer = Transfer::new(setting, STEPS, page)?;
    transfer.tune_fully(page)?;
    let (before, full) = (transfer.accuracy(&[])?, transfer.accuracy(&[FULL])?);
    let parameters = transfer.peft.report(&[])?.all;
    page.line(format!("Base: {} parameters, pre-trained for {} steps", commas(parameters), STEPS.pretrain))?;
    page.fact("pretrained", transfer.pretrained);
    page.line(format!("Its own tasks, held out      : {}", percent(transfer.pretrained)))?;
    page.line(format!("New task before fine-tuning  : {}", percent(before)))?;
    page.line(format!("New task, full, {:>3} steps    : {}", STEPS.tune, percent(full)))?;

    let changes = MATRICES.iter().map(|m| Change::of(&transfer, m)).collect::<Result<Vec<_>>>()?;
    directions(&changes, page)?;
    let at = accuracies(&mut transfer, page)?;
    needed(&at, [before, full], parameters, page)?;
    let alike = subspaces(&transfer, &changes, COMPARED, lora, page)?;
    claims(&changes, &at, &alike, page)?;
    let choices = choices(&mut transfer, page)?;
    seen(&changes, &at, [before, full], choices, page)
}

/// Why the LoRAs start and train as they do: accuracy at rank 4 as they are, at full fine-tuning's rate, and from PEFT's
/// start.
fn choices(transfer: &mut Transfer, page: &mut Page) -> Result<String> {
    let r = COMPARED[0];
    let mut accuracy = vec![transfer.accuracy(&[&lora(r)])?];
    let others = [("at the full rate", Start::Lesson, FULL_LR), ("from PEFT's start", Start::Peft, LORA_LR)];
    for (name, start, rate) in others {
        transfer.tune_lora(name, r, r, (start, rate), page)?;
        accuracy.push(transfer.accuracy(&[name])?);
    }
    page.fact("choices.accuracy", accuracy.clone());
    let [own, slow, peft] = [0, 1, 2].map(|i| percent(accuracy[i]));
    Ok(format!(
        "The LoRAs start with the lesson's A from N(0, 0.01²) and learn at {LORA_LR}: {own} at rank {r}; at full \
         fine-tuning's rate, {FULL_LR}, {slow}; from PEFT's start, U(±1/√in), {peft}."
    ))
}

/// Cuts the full change to each rank, as a LoRA, and trains a LoRA of some ranks.
fn accuracies(transfer: &mut Transfer, page: &mut Page) -> Result<Vec<AtRank>> {
    let full = transfer.logits(&[FULL])?;
    let mut at = Vec::new();
    for r in CUTS {
        let name = format!("cut to {r}");
        let kept = transfer.peft.to_lora(FULL, &name, r)?.kept();
        let cut = transfer.accuracy(&[&name])?;
        let lora = match LORAS.contains(&r) {
            false => None,
            true => {
                let name = lora(r);
                transfer.tune_lora(&name, r, r, (Start::Lesson, LORA_LR), page)?;
                Some((transfer.accuracy(&[&name])?, transfer.peft.report(&[&name])?.trainable))
            }
        };
        at.push(AtRank { r, kept, cut, lora });
    }
    let last = transfer.logits(&[&format!("cut to {}", CUTS[CUTS.len() - 1])])?;
    page.fact("test_rows", transfer.test_rows());
    page.fact("full_rank.logit_error", last.f_sub(&full)?.f_abs()?.f_max()?.f_double_value(&[])?);
    page.fact("full_rank.logit_scale", full.f_abs()?.f_max()?.f_double_value(&[])?);
    Ok(at)
}

fn lora(r: i64) -> String {
    format!("LoRA of rank {r}")
}

/// Accuracy against rank.
fn needed(at: &[AtRank], [before, full]: [f64; 2], parameters: i64, page: &mut Page) -> Result<()> {
    let none = || "–".to_owned();
    let rows = at.iter().map(|a| {
        let (accuracy, trained) = a.lora.map_or((none(), none()), |(accuracy, n)| {
            (percent(accuracy), format!("{} ({})", commas(n), percent(n as f64 / parameters as f64)))
        });
        vec![a.r.to_string(), percent(a.kept), percent(a.cut), accuracy, trained]
    });
    let columns =
        ["rank", "of ‖ΔW‖² kept", "full change, cut", "LoRA, trained", "which trains (of the base)"];
    page.table("Accuracy on the new task with no more than this rank", columns, rows.collect())?;
    page.fact("before", before);
    page.fact("full", full);
    page.fact("parameters", parameters);
    page.fact("cut.rank", at.iter().map(|a| a.r).collect::<Vec<_>>());
    page.fact("cut.kept", at.iter().map(|a| a.kept).collect::<Vec<_>>());
    page.fact("cut.accuracy", at.iter().map(|a| a.cut).collect::<Vec<_>>());
    page.fact("lora.accuracy", at.iter().filter_map(|a| Some(a.lora?.0)).collect::<Vec<_>>());
    page.fact("lora.trainable", at.iter().filter_map(|a| Some(a.lora?.1)).collect::<Vec<_>>());

    let points = |f: &dyn Fn(&AtRank) -> Option<f64>| -> Vec<(f64, f64)> {
        at.iter().filter_map(|a| Some((a.r as f64, 100.0 * f(a)?))).collect()
    };
    let mut curves = vec![
        series("full change, cut to rank r", points(&|a| Some(a.cut))),
        series("LoRA trained at rank r", points(&|a| Some(a.lora?.0))),
    ];
    curves.iter_mut().for_each(|c| c.markers = true);
    curves.push(series("full fine-tuning", points(&|_| Some(full))));
    curves.push(series("before", points(&|_| Some(before))));
    let mut plot = lines("", "rank r", "test accuracy (%)", curves);
    plot.x.log = true;
    let title = "How much rank the new task needs".into();
    page.figure("depth_rank_accuracy", Figure { title, rows: vec![vec![Panel::Lines(plot)]], note: None })
}

/// The lesson's claims about what the paper found.
fn claims(changes: &[Change], at: &[AtRank], alike: &[f64], page: &mut Page) -> Result<()> {
    let below: usize = changes.iter().map(|c| c.own.below(0.01)).sum();
    let all: usize = changes.iter().map(|c| c.own.values.len()).sum();
    let ninety = || changes.iter().map(|c| (c.own.rank_for(0.9), c));
    let (least, most) = (ninety().min_by_key(|n| n.0), ninety().max_by_key(|n| n.0));
    let (Some((low, low_at)), Some((high, high_at))) = (least, most) else { return Ok(()) };
    let first: Vec<String> =
        changes.iter().zip(alike).map(|(c, phi)| format!("{} {phi:.2}", c.matrix)).collect();
    let [small, large] = COMPARED;
    page.fact("below_one_percent", below);
    page.fact("directions", all);
    let kept = at.iter().find(|a| a.r == small).map_or(0.0, |a| a.kept);
    page.mistakes(&[
        Mistake::new(
            "what Hu et al. measured",
            format!(
                "singular values of full fine-tuning's ΔW of GPT-3. Done here: rank {small} keeps {} of ‖ΔW‖²",
                percent(kept)
            ),
            format!(
                "they trained LoRAs of rank 8 and 64 and compared the subspaces of their A. Done here with {small} and \
                 {large}, φ(1, {large}): {}",
                first.join(", ")
            ),
        ),
        Mistake::new(
            "most singular values are close to zero",
            format!("here {below} of {all} are below a hundredth of the largest of their matrix"),
            format!(
                "the largest few have most of the energy, and that differs by matrix: 90 % in {low} of {} ({}), in {high} of \
                 {} ({})",
                low_at.own.values.len(),
                low_at.matrix,
                high_at.own.values.len(),
                high_at.matrix
            ),
        ),
    ])?;
    Ok(())
}

fn seen(
    changes: &[Change],
    at: &[AtRank],
    [before, full]: [f64; 2],
    choices: String,
    page: &mut Page,
) -> Result<()> {
    let won = |accuracy: f64| percent((accuracy - before) / (full - before));
    let of = |r: i64| at.iter().find(|a| a.r == r).context("a rank");
    let four = of(4)?;
    let best = at
        .iter()
        .filter_map(|a| Some((a.r, a.lora?.0)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .context("LoRAs")?;
    let small: Vec<String> = changes
        .iter()
        .map(|c| format!("{} {} (random {})", c.matrix, c.own.rank_for(0.9), c.random.rank_for(0.9)))
        .collect();
    page.fact("lora.best", vec![best.0 as f64, best.1]);
    page.fact("won_at_4", (four.cut - before) / (full - before));
    page.what_to_see(&[
        format!("The change has far fewer directions than chance, and is not of low rank; directions for 90 % of it: {}.", small.join(", ")),
        format!(
            "The task needs less than the change has: cut to rank 4, with {} of ‖ΔW‖² left, the model keeps {} of what \
             fine-tuning won.",
            percent(four.kept),
            won(four.cut)
        ),
        format!(
            "A LoRA does not have to find that change, only one that works: the best, of rank {}, gets {}, full fine-tuning {}.",
            best.0,
            percent(best.1),
            percent(full)
        ),
        "The cut change has biases, norms, embedding and head as well (to_lora keeps or cuts them); the LoRAs train the \
         four matrices alone.".into(),
        choices,
        "This is one small model on one task: it shows how to look, not what a large model does.".into(),
    ])?;
    Ok(())
}
