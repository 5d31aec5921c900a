//! Sections 2.1 to 2.5.

use super::setup::{Lesson, R, TECHNIQUES, TRAIN, Technique, VIRTUAL};
use crate::measure::{max_abs, torch_size};
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::{BottleneckConfig, PrefixTuningConfig};
use peft_core::models::TinyConfig;
use peft_core::report::commas;
use peft_core::seam::MethodConfig;
use peft_core::seam::PREFIX;
use peft_core::{Batch, Model, Pass};
use peft_plot::{Axis, Figure, Lines, Panel, Series};

fn technique(key: &str) -> Result<&'static Technique> {
    TECHNIQUES.iter().find(|t| t.key == key).with_context(|| format!("no technique `{key}`"))
}

/// `584 / 29,324  (1.99%)`: trained, all, and the share of all.
fn share(lesson: &Lesson, key: &str, decimals: usize) -> Result<String> {
    let r = lesson.peft.report(&[key])?;
    Ok(format!("{} / {}  ({:.decimals$}%)", commas(r.trainable), commas(r.all), r.percent()))
}

/// Trains a technique and records its numbers as facts; the loss of every step.
pub(super) fn fit(lesson: &Lesson, key: &str, page: &mut Page) -> Result<Vec<f64>> {
    let losses = lesson.fit(technique(key)?)?;
    page.fact(&format!("{key}.losses"), losses.clone());
    page.fact(&format!("{key}.test_correct"), lesson.correct(&[key], &lesson.test)?.0);
    page.fact(&format!("{key}.train_correct"), lesson.correct(&[key], &lesson.train)?.0);
    let report = lesson.peft.report(&[key])?;
    page.fact(&format!("{key}.trainable"), report.trainable);
    page.fact(&format!("{key}.all"), report.all);
    Ok(losses)
}

pub(super) fn start(setting: Setting, page: &mut Page) -> Result<Lesson> {
    let lesson = Lesson::new(setting)?;
    page.fact("seed", setting.seed);
    page.fact("base.losses", lesson.losses.clone());
    Ok(lesson)
}

/// Loss against step, one curve a technique.
pub(super) fn loss_curves(title: &str, curves: Vec<(&str, &[f64])>) -> Figure {
    let series = curves.into_iter().map(|(name, losses)| Series {
        name: name.into(),
        points: (1u32..).map(f64::from).zip(losses.iter().copied()).collect(),
        ..Series::default()
    });
    let lines = Lines {
        title: format!("full-batch Adam on {TRAIN} random labels"),
        x: Axis { label: "step".into(), ..Axis::default() },
        y: Axis { label: "training loss (nats)".into(), ..Axis::default() },
        series: series.collect(),
    };
    Figure { title: title.into(), rows: vec![vec![Panel::Lines(lines)]], note: None }
}

/// The labels are random: what the accuracy is, and what guessing gives.
pub(super) fn by_chance(lesson: &Lesson) -> Result<Mistake> {
    let (right, all) = lesson.correct(&[], &lesson.test)?;
    let (train, trained) = lesson.correct(&[], &lesson.train)?;
    Ok(Mistake::new(
        "accuracy on random labels measures nothing",
        format!("the base gets {right} of {all} test rows; the \"downstream\" data is the pre-training data"),
        format!(
            "guessing gives {:.0} of {all}; the base has learned {train} of {trained} training rows by heart",
            all as f64 / TinyConfig::default().classes as f64
        ),
    ))
}

/// 2.1 Base Model Setup.
pub fn base_model(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("Pre-trained accuracy: {:.2}%", lesson.accuracy(&[])?))?;
    let total = lesson.peft.report(&[])?.all;
    page.line(format!("Total base params: {}", commas(total)))?;
    page.fact("base.test_correct", lesson.correct(&[], &lesson.test)?.0);
    page.fact("base.train_correct", lesson.correct(&[], &lesson.train)?.0);
    let reordered = reordered(&lesson)?;
    page.fact("base.reordered", reordered);
    page.mistakes(&[
        by_chance(&lesson)?,
        Mistake::new(
            "there are no positions",
            format!("the same words backwards: the logits differ by {reordered:.1e}, rounding"),
            "a transformer adds positions to its words; this one sees a bag of them",
        ),
    ])?;
    let last = lesson.losses.last().copied().unwrap_or(f64::NAN);
    let first = lesson.losses.first().copied().unwrap_or(f64::NAN);
    page.what_to_see(&[
        format!(
            "The loss fell from {first:.3} to {last:.3} in {} full-batch steps of Adam.",
            lesson.losses.len()
        ),
        "From here on the base is frozen: no tensor of it has requires_grad, whatever is trained over it."
            .into(),
    ])?;
    page.figure("base_model_loss", loss_curves("Pre-training", vec![("base", &lesson.losses)]))
}

/// What reading each row backwards changes in the logits.
fn reordered(lesson: &Lesson) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let base = lesson.peft.view(&[])?;
    let backwards = Batch::dense(lesson.test.batch.ids()?.f_flip([1])?);
    max_abs(&base.forward(&lesson.test.batch, Pass::eval())?, &base.forward(&backwards, Pass::eval())?)
}

/// 2.2 Adapter-Based Fine-Tuning.
pub fn adapter(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("Adapter trainable: {}", share(&lesson, "adapter", 2)?))?;
    let before = lesson.accuracy(&["adapter"])?;
    let losses = fit(&lesson, "adapter", page)?;
    page.line(format!("Adapter accuracy : {:.2}%", lesson.accuracy(&["adapter"])?))?;
    page.line(format!("Base accuracy    : {:.2}%  (base unchanged)", lesson.accuracy(&[])?))?;
    let report = lesson.peft.report(&["adapter"])?;
    let houlsby = count(
        &lesson,
        BottleneckConfig { bottleneck_size: R, reduction_factor: None, ..BottleneckConfig::houlsby() },
    )?;
    page.fact("adapter.houlsby", houlsby);
    page.mistakes(&[Mistake::new(
        "where an adapter belongs",
        format!(
            "after each whole layer, past its last LayerNorm: one a layer, {} parameters",
            commas(report.trainable)
        ),
        format!(
            "Houlsby et al. have two a layer, after attention and after the feed-forward part: {} parameters",
            commas(houlsby)
        ),
    )])?;
    page.what_to_see(&[
        report.to_string(),
        format!(
            "The up-projection starts at zero, so the untrained adapter is the identity: {before:.2}% before training, \
             as the base."
        ),
        "There is nothing to merge: a bottleneck is not a change of weights.".into(),
    ])?;
    page.figure("adapter_loss", loss_curves("Adapter", vec![("adapter", &losses)]))
}

/// Parameters that a method would train over this base.
pub(super) fn count(lesson: &Lesson, method: impl Into<Box<dyn MethodConfig>>) -> Result<i64> {
    let blueprint = Blueprint::like(&lesson.peft)?;
    Ok(blueprint.estimate(method, &Setup::default())?.report.trainable)
}

/// 2.3 LoRA.
pub fn lora(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("LoRA trainable : {}", share(&lesson, "lora", 2)?))?;
    let tensors = lesson.peft.params("lora")?.tensors();
    for (letter, note) in [("A", "(r x d_in)"), ("B", "(d_out x r)")] {
        let t = &tensors[&format!("{PREFIX}layers.0.ff.0.lora_{letter}.weight")];
        page.line(format!("{letter} shape: {}  {note}", torch_size(t)))?;
    }
    let losses = fit(&lesson, "lora", page)?;
    page.line(format!("LoRA accuracy  : {:.2}%", lesson.accuracy(&["lora"])?))?;
    let (error, scale) = merge_error(&lesson)?;
    page.fact("lora.merge_error", error);
    page.fact("lora.logits", scale);
    page.what_to_see(&[
        lesson.peft.report(&["lora"])?.to_string(),
        format!(
            "Merged, W + (alpha/r) B A, the logits differ by {error:.1e} where they reach {scale:.1}: rounding."
        ),
        "Only the first feed-forward layer is adapted here; the usual choice is the attention's query and value.".into(),
    ])?;
    page.figure("lora_loss", loss_curves("LoRA", vec![("LoRA", &losses)]))
}

/// What folding the trained LoRA into the base changes in the logits, and the largest of them.
fn merge_error(lesson: &Lesson) -> Result<(f64, f64)> {
    let _guard = tch::no_grad_guard();
    let adapted = lesson.peft.view(&["lora"])?.forward(&lesson.test.batch, Pass::eval())?;
    let merged = lesson.peft.merged(&["lora"])?;
    let merged = merged.view(&[])?.forward(&lesson.test.batch, Pass::eval())?;
    Ok((max_abs(&adapted, &merged)?, f64::try_from(adapted.f_abs()?.f_max()?)?))
}

/// 2.4 Prompt Tuning.
pub fn prompt_tuning(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("Prompt tuning trainable: {}", share(&lesson, "prompt", 3)?))?;
    let tensors = lesson.peft.params("prompt")?.tensors();
    let prompt = &tensors["prompt_embeddings"];
    page.line(format!("Soft prompt shape: {}  (n_virtual_tokens x d_model)", torch_size(prompt)))?;
    let losses = fit(&lesson, "prompt", page)?;
    page.line(format!("Prompt tuning accuracy : {:.2}%", lesson.accuracy(&["prompt"])?))?;
    let report = lesson.peft.report(&["prompt"])?;
    page.what_to_see(&[
        report.to_string(),
        format!(
            "{} vectors of {} numbers: the count does not grow with the depth of the base.",
            prompt.size()[0],
            prompt.size()[1]
        ),
        "The mean is taken over the real tokens alone, so the prompt acts through attention only.".into(),
    ])?;
    page.figure("prompt_tuning_loss", loss_curves("Prompt tuning", vec![("prompt", &losses)]))
}

/// 2.5 Prefix Tuning.
pub fn prefix_tuning(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("Prefix tuning trainable: {}", share(&lesson, "prefix", 3)?))?;
    let losses = fit(&lesson, "prefix", page)?;
    page.line(format!("Prefix tuning accuracy : {:.2}%", lesson.accuracy(&["prefix"])?))?;
    let report = lesson.peft.report(&["prefix"])?;
    let published = count(&lesson, PrefixTuningConfig { num_virtual_tokens: VIRTUAL, ..Default::default() })?;
    page.fact("prefix.published", published);
    page.mistakes(&[Mistake::new(
        "what a prefix is",
        format!(
            "hidden states that go through each layer's own projections, with queries that are thrown away: {} \
             parameters",
            commas(report.trainable)
        ),
        format!(
            "Li and Liang train the keys and values themselves, a pair for each of these: {} parameters \
             (`PrefixTuningConfig`, here `HiddenPrefixConfig`)",
            commas(published)
        ),
    )])?;
    page.what_to_see(&[report.to_string()])?;
    page.figure("prefix_tuning_loss", loss_curves("Prefix tuning", vec![("hidden prefix", &losses)]))
}
