//! Sections 2.1 to 2.6.

use super::setup::{Lesson, TECHNIQUES, Technique};
use crate::{Page, Setting};
use anyhow::{Context, Result};
use peft_core::{PREFIX, commas};

fn technique(key: &str) -> Result<&'static Technique> {
    TECHNIQUES.iter().find(|t| t.key == key).with_context(|| format!("no technique `{key}`"))
}

/// As Python prints a tensor's shape.
fn torch_size(shape: &[i64]) -> String {
    format!("torch.Size({shape:?})")
}

/// `584 / 29,324  (1.99%)`: trained, all, and the share of all.
fn share(lesson: &Lesson, key: &str, decimals: usize) -> Result<String> {
    let r = lesson.peft.report(&[key])?;
    Ok(format!("{} / {}  ({:.decimals$}%)", commas(r.trainable), commas(r.all), r.percent()))
}

/// Trains a technique and records its numbers as facts.
pub(super) fn fit(lesson: &Lesson, key: &str, page: &mut Page) -> Result<()> {
    let losses = lesson.fit(technique(key)?)?;
    page.fact(&format!("{key}.losses"), losses);
    page.fact(&format!("{key}.test_correct"), lesson.correct(&[key], &lesson.test)?.0);
    page.fact(&format!("{key}.train_correct"), lesson.correct(&[key], &lesson.train)?.0);
    let report = lesson.peft.report(&[key])?;
    page.fact(&format!("{key}.trainable"), report.trainable);
    page.fact(&format!("{key}.all"), report.all);
    Ok(())
}

pub(super) fn start(setting: Setting, page: &mut Page) -> Result<Lesson> {
    let lesson = Lesson::new(setting)?;
    page.fact("seed", setting.seed);
    page.fact("base.losses", lesson.losses.clone());
    Ok(lesson)
}

/// "40 test examples, 4 classes: 5 right is 12.50 %, guessing gives 25 %".
pub(super) fn chance(lesson: &Lesson) -> Result<String> {
    let (right, all) = lesson.correct(&[], &lesson.test)?;
    let (train, trained) = lesson.correct(&[], &lesson.train)?;
    Ok(format!(
        "The labels are random: the base has learned {train} of {trained} training rows by heart and gets {right} of \
         {all} test rows, where guessing gives {:.0}.",
        all as f64 / lesson.peft.config().classes as f64
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
    let last = lesson.losses.last().copied().unwrap_or(f64::NAN);
    let first = lesson.losses.first().copied().unwrap_or(f64::NAN);
    page.what_to_see(&[
        chance(&lesson)?,
        format!(
            "The loss fell from {first:.3} to {last:.3} in {} full-batch steps of Adam.",
            lesson.losses.len()
        ),
        "There are no positions in this model: it sees a bag of tokens.".into(),
        "From here on the base is frozen: no tensor of it has requires_grad, whatever is trained over it."
            .into(),
    ])?;
    Ok(())
}

/// 2.2 Adapter-Based Fine-Tuning.
pub fn adapter(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("Adapter trainable: {}", share(&lesson, "adapter", 2)?))?;
    let before = lesson.accuracy(&["adapter"])?;
    fit(&lesson, "adapter", page)?;
    page.line(format!("Adapter accuracy : {:.2}%", lesson.accuracy(&["adapter"])?))?;
    page.line(format!("Base accuracy    : {:.2}%  (base unchanged)", lesson.accuracy(&[])?))?;
    page.what_to_see(&[
        lesson.peft.report(&["adapter"])?.to_string(),
        format!(
            "The up-projection starts at zero, so the untrained adapter is the identity: {before:.2}% before training, \
             as the base."
        ),
        "This one sits after each whole layer, past its last LayerNorm; Houlsby's original has two a layer, after \
         attention and after the feed-forward part (`placement` in BottleneckConfig)."
            .into(),
        "There is nothing to merge: a bottleneck is not a change of weights.".into(),
    ])?;
    Ok(())
}

/// 2.3 LoRA.
pub fn lora(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("LoRA trainable : {}", share(&lesson, "lora", 2)?))?;
    let tensors = lesson.peft.params("lora")?.tensors();
    for (letter, note) in [("A", "(r x d_in)"), ("B", "(d_out x r)")] {
        let t = &tensors[&format!("{PREFIX}layers.0.ff.0.lora_{letter}.weight")];
        page.line(format!("{letter} shape: {}  {note}", torch_size(&t.size())))?;
    }
    fit(&lesson, "lora", page)?;
    page.line(format!("LoRA accuracy  : {:.2}%", lesson.accuracy(&["lora"])?))?;
    page.what_to_see(&[
        lesson.peft.report(&["lora"])?.to_string(),
        merge_error(&lesson)?,
        "Only the first feed-forward layer is adapted here; the usual choice is the attention's query and value.".into(),
    ])?;
    Ok(())
}

/// What folding the trained LoRA into the base changes in the logits: nothing but rounding.
fn merge_error(lesson: &Lesson) -> Result<String> {
    use peft_core::{Model, Pass};
    let _guard = tch::no_grad_guard();
    let adapted = lesson.peft.view(&["lora"])?.forward(&lesson.test.batch, Pass::eval())?;
    let merged = lesson.peft.merged(&["lora"])?;
    let merged = merged.view(&[])?.forward(&lesson.test.batch, Pass::eval())?;
    let error = f64::try_from(adapted.f_sub(&merged)?.f_abs()?.f_max()?)?;
    let scale = f64::try_from(adapted.f_abs()?.f_max()?)?;
    Ok(format!(
        "Merged, W + (alpha/r) B A, the logits differ by {error:.1e} where they reach {scale:.1}: rounding."
    ))
}

/// 2.4 Prompt Tuning.
pub fn prompt_tuning(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("Prompt tuning trainable: {}", share(&lesson, "prompt", 3)?))?;
    let shape = lesson.peft.params("prompt")?.tensors()["prompt_embeddings"].size();
    page.line(format!("Soft prompt shape: {}  (n_virtual_tokens x d_model)", torch_size(&shape)))?;
    fit(&lesson, "prompt", page)?;
    page.line(format!("Prompt tuning accuracy : {:.2}%", lesson.accuracy(&["prompt"])?))?;
    let report = lesson.peft.report(&["prompt"])?;
    let base = lesson.peft.report(&[])?.all;
    page.what_to_see(&[
        report.to_string(),
        format!(
            "The lesson's closing table says <0.1 %; here it is {:.3} %, because the base is tiny: five vectors do not \
             grow with it.",
            100.0 * report.trainable as f64 / base as f64
        ),
        "The mean is taken over the real tokens alone, so the prompt acts through attention only.".into(),
    ])?;
    Ok(())
}

/// 2.5 Prefix Tuning.
pub fn prefix_tuning(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    page.line(format!("Prefix tuning trainable: {}", share(&lesson, "prefix", 3)?))?;
    fit(&lesson, "prefix", page)?;
    page.line(format!("Prefix tuning accuracy : {:.2}%", lesson.accuracy(&["prefix"])?))?;
    let report = lesson.peft.report(&["prefix"])?;
    page.what_to_see(&[
        report.to_string(),
        "These are hidden states that go through each layer's own query, key and value projection. Prefix tuning as \
         published trains the keys and values themselves: PrefixTuningConfig, here HiddenPrefixConfig."
            .into(),
        format!(
            "Published prefixes would have {} parameters here, one key and one value for each hidden state.",
            commas(2 * report.trainable)
        ),
    ])?;
    Ok(())
}
